//! Operations on endpoints, which the administration answers.

use crate::api::answers::shared_refusal::SharedRefusal;
use crate::api::handlers::endpoints;
use crate::api::handlers::overview;
use crate::api::handlers::webhook_api;
use crate::api::openapi::operation::RouteOperation;

/// Endpoints, and what makes one take events.
pub(super) fn of_endpoints() -> Vec<RouteOperation> {
    vec![
        RouteOperation::get(
            "/api/v1/endpoints",
            "Lists all endpoints, those of the configuration file too",
            endpoints::list,
        )
        .says(200, "A page of the endpoints"),
        RouteOperation::post(
            "/api/v1/endpoints",
            "Makes an endpoint; it takes the next row that is read",
            endpoints::create,
        )
        .says(201, "It is made")
        .refuses(SharedRefusal::Conflict)
        .refuses(SharedRefusal::Unservable),
        RouteOperation::get("/api/v1/endpoints/{name}", "Shows an endpoint", endpoints::show)
            .says(200, "The endpoint")
            .refuses(SharedRefusal::NoEndpoint),
        RouteOperation::put(
            "/api/v1/endpoints/{name}",
            "Puts another document in the place of an endpoint's",
            endpoints::replace,
        )
        .says(200, "It is changed")
        .refuses(SharedRefusal::NoEndpoint)
        .refuses(SharedRefusal::Conflict)
        .refuses(SharedRefusal::Unservable),
        RouteOperation::patch(
            "/api/v1/endpoints/{name}",
            "Changes what is said (JSON merge patch, RFC 7396)",
            endpoints::patch,
        )
        .says(200, "It is changed")
        .refuses(SharedRefusal::NoEndpoint)
        .refuses(SharedRefusal::Conflict)
        .refuses(SharedRefusal::Unservable),
        RouteOperation::delete(
            "/api/v1/endpoints/{name}",
            "Removes an endpoint; what waits for it becomes dead letters",
            endpoints::delete,
        )
        .says(202, "It is being removed")
        .refuses(SharedRefusal::NoEndpoint)
        .refuses(SharedRefusal::Conflict),
        RouteOperation::get(
            "/api/v1/endpoints/{name}/samples",
            "The last hour of one endpoint in numbers",
            overview::of_endpoint,
        )
        .says(
            200,
            "A sample for each half minute; kept of the 200 busiest endpoints \
             and of those that are looked at",
        )
        .refuses(SharedRefusal::NoEndpoint),
        RouteOperation::post(
            "/api/v1/endpoints/{name}/enable",
            "Lets an endpoint take events again; one that said 410 also if it \
             is of the file or a table",
            endpoints::enable,
        )
        .says(200, "The endpoint")
        .refuses(SharedRefusal::NoEndpoint)
        .refuses(SharedRefusal::Conflict)
        .refuses(SharedRefusal::Unservable),
    ]
}

/// What is done to one endpoint.
pub(super) fn of_acts_on_endpoints() -> Vec<RouteOperation> {
    vec![
        RouteOperation::post(
            "/api/v1/endpoints/{name}/disable",
            "Takes no more events for an endpoint; what waits for it stays",
            endpoints::disable,
        )
        .says(200, "The endpoint")
        .refuses(SharedRefusal::NoEndpoint)
        .refuses(SharedRefusal::Conflict)
        .refuses(SharedRefusal::Unservable),
        RouteOperation::post(
            "/api/v1/endpoints/{name}/pause",
            "Holds back what comes for an endpoint, wherever it was made: its \
             events are parked and none is lost",
            endpoints::pause,
        )
        .says(200, "The endpoint")
        .refuses(SharedRefusal::NoEndpoint)
        .refuses(SharedRefusal::Conflict)
        .refuses(SharedRefusal::Unservable),
        RouteOperation::post(
            "/api/v1/endpoints/{name}/resume",
            "Lets a paused endpoint go on with all that waits",
            endpoints::resume,
        )
        .says(200, "The endpoint")
        .refuses(SharedRefusal::NoEndpoint)
        .refuses(SharedRefusal::Conflict)
        .refuses(SharedRefusal::Unservable),
        RouteOperation::post(
            "/api/v1/endpoints/{name}/try-now",
            "Tries at once what waits for an endpoint; its retries begin anew",
            endpoints::try_now,
        )
        .says(200, "The endpoint")
        .refuses(SharedRefusal::NoEndpoint)
        .refuses(SharedRefusal::Conflict)
        .refuses(SharedRefusal::Unservable),
        RouteOperation::post(
            "/api/v1/endpoints/{name}/rename",
            "Gives an endpoint of the API another name: what waits, is dead or \
             paused goes along",
            endpoints::rename,
        )
        .says(200, "The endpoint under its new name")
        .refuses(SharedRefusal::NoEndpoint)
        .refuses(SharedRefusal::Conflict)
        .refuses(SharedRefusal::Unservable),
        RouteOperation::post(
            "/api/v1/endpoints/{name}/rotate-secret",
            "Gives an endpoint another secret; both sign for a while",
            endpoints::rotate,
        )
        .says(200, "It has another secret")
        .refuses(SharedRefusal::NoEndpoint)
        .refuses(SharedRefusal::Conflict)
        .refuses(SharedRefusal::Unservable),
        RouteOperation::post(
            "/api/v1/endpoints/{name}/test",
            "Sends a test event now, once, beside what waits",
            endpoints::test,
        )
        .says(200, "What came back")
        .refuses(SharedRefusal::NoEndpoint)
        .refused(422, "The endpoint takes no such event, or there is no row to make it of"),
    ]
}

/// What clients of `wechat-messages` call.
pub(super) fn of_webhooks() -> Vec<RouteOperation> {
    vec![
        RouteOperation::post(
            "/v1/webhook/Config",
            "Makes a webhook, or changes the one with this URL (`wechat-messages`)",
            webhook_api::config,
        )
        .remark("Only URL is needed. Needs [webhook_api] in the configuration.")
        .says(200, "It is made")
        .refused(404, "The configuration has no [webhook_api], or there is no such webhook")
        .refuses(SharedRefusal::Conflict)
        .refuses(SharedRefusal::Unservable),
        RouteOperation::get(
            "/v1/webhook/List",
            "Lists webhooks (`wechat-messages`)",
            webhook_api::list,
        )
        .says(200, "The webhooks, secrets masked")
        .refused(404, "The configuration has no [webhook_api], or there is no such webhook"),
        RouteOperation::get(
            "/v1/webhook/Test",
            "Sends a test message to one webhook, or to all (`wechat-messages`)",
            webhook_api::test,
        )
        .remark(
            "`success` says that the call was answered; whether a webhook took \
             the message is `delivered`.",
        )
        .says(200, "What came back")
        .refused(404, "The configuration has no [webhook_api], or there is no such webhook")
        .refuses(SharedRefusal::Unservable),
        RouteOperation::put(
            "/v1/webhook/Update",
            "Changes what is said of a webhook (`wechat-messages`)",
            webhook_api::update,
        )
        .remark(
            "Found by Name or URL; if there is only one webhook, that one, so \
             that its URL can be changed.",
        )
        .says(200, "It is changed")
        .refused(404, "The configuration has no [webhook_api], or there is no such webhook")
        .refuses(SharedRefusal::Conflict)
        .refuses(SharedRefusal::Unservable),
    ]
}
