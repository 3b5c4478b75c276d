//! Every operation of the surface: its path, who answers it, and what its answers mean.
//!
//! What is not in these tables is not served, and the document is made of them.

mod administration;
mod state;

use crate::api::answers::shared_refusal::SharedRefusal;
use crate::api::handlers::events;
use crate::api::handlers::live;
use crate::api::handlers::members;
use crate::api::handlers::overview;
use crate::api::handlers::source;
use crate::api::handlers::stats;
use crate::api::handlers::status;
use crate::api::openapi::operation::RouteOperation;
use crate::api::page;

/// What everybody may ask.
pub(crate) fn open() -> Vec<RouteOperation> {
    vec![
        RouteOperation::get("/health", "The process lives", status::health).says(200, "It does"),
        RouteOperation::get("/ready", "Changes flow", status::ready)
            .says(200, "They do")
            .refused(503, "They do not, and why"),
        RouteOperation::get("/metrics", "Metrics for Prometheus", status::metrics)
            .says(200, "All series")
            .refuses(SharedRefusal::Busy),
        RouteOperation::get("/", "The page that an operator looks at", page::index)
            .says(200, "The page")
            .refuses(SharedRefusal::Busy),
        RouteOperation::get("/ui/{file}", "A file of the page", page::file)
            .says(200, "The file")
            .refused(404, "The page has no such file"),
        RouteOperation::post(
            "/login",
            "Takes the token once and gives the page a cookie for it",
            page::login,
        )
        .needs_body()
        .says(204, "The cookie")
        .refused(
            403,
            "The token is wrong, the header X-Walhook is missing, or it comes \
             from a page of another site",
        ),
        RouteOperation::post("/logout", "Takes the cookie back", page::logout)
            .says(204, "It is gone")
            .refuses(SharedRefusal::OtherSite),
    ]
}

/// What needs the token, if there is one.
pub(crate) fn guarded() -> Vec<RouteOperation> {
    let groups = [
        of_numbers(),
        of_source_and_events(),
        administration::of_endpoints(),
        administration::of_acts_on_endpoints(),
        state::of_letters(),
        state::of_single_letters(),
        state::of_attempts(),
        state::of_backfills(),
        administration::of_webhooks(),
    ];
    groups.into_iter().flatten().map(guard).collect()
}

/// What is refused before an operation is reached.
pub(crate) fn guard(operation: RouteOperation) -> RouteOperation {
    let refusals = [
        SharedRefusal::WrongQuestion,
        SharedRefusal::NoToken,
        SharedRefusal::OtherSite,
        SharedRefusal::Busy,
    ];
    refusals.into_iter().fold(operation, RouteOperation::refuses)
}

/// What there is at the moment.
fn of_numbers() -> Vec<RouteOperation> {
    vec![
        RouteOperation::get(
            "/api/v1/webhook/stats",
            "Sums of pushes, kept through restarts (`ocr-wallet`)",
            stats::stats,
        )
        .says(200, "The sums"),
        RouteOperation::get(
            "/api/v1/status",
            "Position, lag, slot, endpoints with their queues and breakers",
            status::status,
        )
        .says(200, "The status"),
        RouteOperation::get(
            "/api/v1/overview",
            "The last hour and day in numbers, and whether the books are balanced",
            overview::overview,
        )
        .says(200, "The numbers"),
        RouteOperation::get(
            "/api/v1/live",
            "What happens, as server-sent events: attempts, numbers, and \
             dropped for a reader that takes nothing",
            live::live,
        )
        .says(200, "Events until the reader leaves")
        .refused(503, "Too many look on already"),
    ]
}

/// The database behind the events, and single events.
fn of_source_and_events() -> Vec<RouteOperation> {
    vec![
        RouteOperation::get(
            "/api/v1/source",
            "The database behind the events: its slot, tables and what was left out",
            source::source,
        )
        .says(200, "The source")
        .refuses(SharedRefusal::StateAway),
        RouteOperation::get(
            "/api/v1/source/findings",
            "What `walhook check` finds, while walhook runs",
            source::findings,
        )
        .says(200, "The findings"),
        RouteOperation::get(
            "/api/v1/members",
            "Who delivers for the source, which partitions each has, and which nobody has; every \
             member answers the same",
            members::list,
        )
        .says(200, "The members; none where the source is not shared")
        .refuses(SharedRefusal::StateAway),
        RouteOperation::get(
            "/api/v1/event-types",
            "Each event type with the JSON Schema of its bodies",
            source::event_types,
        )
        .says(200, "Of the tables as they are"),
        RouteOperation::post(
            "/api/v1/try",
            "Tells what events a row would raise, and what each endpoint would \
             get; nothing is sent",
            source::try_row,
        )
        .needs_body()
        .says(200, "What would come of it; without row and key also rows to choose from")
        .refused(
            422,
            "There is no such table or column, or a value is none of its \
             column's type",
        ),
        RouteOperation::get(
            "/api/v1/events/{event_id}",
            "One event wherever it is: attempts, what waits, dead letters, and \
             other events of its row",
            events::show,
        )
        .says(200, "The event")
        .refused(404, "Nothing is known of it")
        .refuses(SharedRefusal::StateAway),
    ]
}
