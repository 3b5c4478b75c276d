//! Operations on what the state holds: dead letters, attempts, messages, replays, backfills.

use crate::api::answers::shared_refusal::SharedRefusal;
use crate::api::handlers::backfills;
use crate::api::handlers::dead_letters;
use crate::api::handlers::letter_bulk;
use crate::api::handlers::message_history;
use crate::api::handlers::push_logs;
use crate::api::handlers::replay;
use crate::api::openapi::operation::RouteOperation;

/// Dead letters.
pub(super) fn of_letters() -> Vec<RouteOperation> {
    vec![
        RouteOperation::get(
            "/api/v1/dead-letters",
            "Lists dead letters, the newest first",
            dead_letters::list,
        )
        .says(200, "A page")
        .refuses(SharedRefusal::StateAway),
        RouteOperation::post(
            "/api/v1/dead-letters/resend",
            "Sends dead letters again, with all retries",
            dead_letters::resend,
        )
        .needs_body()
        .says(200, "A dry run")
        .says(202, "They are asked for")
        .refused(409, "Nothing of it can be sent")
        .refuses(SharedRefusal::StateAway),
        RouteOperation::post(
            "/api/v1/dead-letters/discard",
            "Closes dead letters that need not be sent any more",
            dead_letters::discard,
        )
        .needs_body()
        .says(200, "How many were discarded, or in a dry run would be")
        .refuses(SharedRefusal::StateAway),
        RouteOperation::get(
            "/api/v1/dead-letters/groups",
            "Counts dead letters by endpoint, class and state",
            letter_bulk::groups,
        )
        .says(200, "The whole of what the filter means")
        .refuses(SharedRefusal::StateAway),
        RouteOperation::post(
            "/api/v1/dead-letters/cancel",
            "Takes back what was asked to be sent again and is not on its way yet",
            letter_bulk::cancel,
        )
        .needs_body()
        .says(200, "How many")
        .refuses(SharedRefusal::StateAway),
    ]
}

/// One dead letter.
pub(super) fn of_single_letters() -> Vec<RouteOperation> {
    vec![
        RouteOperation::get(
            "/api/v1/dead-letters/{id}",
            "One dead letter with its body as it would be sent now",
            dead_letters::show,
        )
        .says(200, "The letter")
        .refused(404, "There is no such letter")
        .refuses(SharedRefusal::StateAway),
        RouteOperation::delete(
            "/api/v1/dead-letters/{id}",
            "Discards one dead letter",
            dead_letters::discard_one,
        )
        .says(200, "It is discarded")
        .refused(404, "There is no such letter")
        .refused(409, "Its state does not allow it")
        .refuses(SharedRefusal::StateAway),
        RouteOperation::post(
            "/api/v1/dead-letters/{id}/resend",
            "Sends one dead letter again",
            dead_letters::resend_one,
        )
        .says(202, "It is asked for")
        .refused(404, "There is no such letter")
        .refused(409, "Its state does not allow it")
        .refuses(SharedRefusal::StateAway),
        RouteOperation::post(
            "/api/v1/dead-letters/{id}/discard",
            "Discards one dead letter",
            dead_letters::discard_one,
        )
        .says(200, "It is discarded")
        .refused(404, "There is no such letter")
        .refused(409, "Its state does not allow it")
        .refuses(SharedRefusal::StateAway),
    ]
}

/// Attempts, messages and replays.
pub(super) fn of_attempts() -> Vec<RouteOperation> {
    vec![
        RouteOperation::get(
            "/api/v1/push-logs",
            "Lists attempts, the newest first",
            push_logs::list,
        )
        .says(200, "A page")
        .refuses(SharedRefusal::StateAway),
        RouteOperation::get(
            "/api/v1/messages/{message_id}/status",
            "What became of a message",
            message_history::status,
        )
        .says(
            200,
            "Where it stands, and where with each user: message_id, msgid, \
             status, updated_at, users",
        )
        .refused(404, "There is no such message, or no [messages] in the configuration")
        .refuses(SharedRefusal::StateAway),
        RouteOperation::get(
            "/api/v1/messages/{message_id}/history",
            "The steps of a message",
            message_history::history,
        )
        .says(200, "Its steps in their order: state, user, at, detail")
        .refused(404, "There is no such message, or no [messages] in the configuration")
        .refuses(SharedRefusal::StateAway),
        RouteOperation::get("/api/v1/replay", "Lists replays, the newest first", replay::list)
            .says(200, "The last hundred")
            .refuses(SharedRefusal::StateAway),
        RouteOperation::post(
            "/api/v1/replay",
            "Sends delivered events again, as far as the push log kept their bodies",
            replay::order,
        )
        .needs_body()
        .says(200, "A dry run")
        .says(202, "A replay for each endpoint")
        .refused(409, "Nothing of it can be sent")
        .refuses(SharedRefusal::StateAway),
        RouteOperation::get("/api/v1/replay/{id}", "One replay and how far it is", replay::show)
            .says(200, "The replay")
            .refused(404, "There is no such replay")
            .refuses(SharedRefusal::StateAway),
        RouteOperation::delete("/api/v1/replay/{id}", "Stops a replay", replay::cancel)
            .says(200, "The replay")
            .refused(404, "There is no such replay")
            .refused(409, "It is not running")
            .refuses(SharedRefusal::StateAway),
        RouteOperation::post(
            "/api/v1/replay/{id}/pause",
            "Holds a replay back; it goes on where it is",
            replay::pause,
        )
        .says(200, "The replay")
        .refused(404, "There is no such replay")
        .refused(409, "It is not running")
        .refuses(SharedRefusal::StateAway),
        RouteOperation::post(
            "/api/v1/replay/{id}/resume",
            "Lets a replay go on that is paused",
            replay::resume,
        )
        .says(200, "The replay")
        .refused(404, "There is no such replay")
        .refused(409, "It is not paused")
        .refuses(SharedRefusal::StateAway),
    ]
}

/// Rows that were there before.
pub(super) fn of_backfills() -> Vec<RouteOperation> {
    vec![
        RouteOperation::get(
            "/api/v1/backfills",
            "Lists backfills, the newest first",
            backfills::list,
        )
        .says(200, "The last hundred")
        .refuses(SharedRefusal::StateAway),
        RouteOperation::post(
            "/api/v1/backfills",
            "Sends rows that tables hold already, in order with the changes \
             that go on",
            backfills::order,
        )
        .says(200, "A dry run")
        .says(202, "A backfill for each table")
        .refused(409, "An endpoint is not configured")
        .refused(422, "A table cannot be read, a condition is none, or no event takes the rows")
        .refuses(SharedRefusal::StateAway),
        RouteOperation::get(
            "/api/v1/backfills/{id}",
            "One backfill and how far it is",
            backfills::show,
        )
        .says(200, "The backfill")
        .refused(404, "There is no such backfill")
        .refuses(SharedRefusal::StateAway),
        RouteOperation::delete(
            "/api/v1/backfills/{id}",
            "Ends a backfill where it is",
            backfills::cancel,
        )
        .says(200, "The backfill")
        .refused(404, "There is no such backfill")
        .refused(409, "It has ended already")
        .refuses(SharedRefusal::StateAway),
        RouteOperation::post(
            "/api/v1/backfills/{id}/pause",
            "Reads nothing more of it until it is resumed",
            backfills::pause,
        )
        .says(200, "The backfill")
        .refused(404, "There is no such backfill")
        .refused(409, "It is not running")
        .refuses(SharedRefusal::StateAway),
        RouteOperation::post(
            "/api/v1/backfills/{id}/resume",
            "Goes on with one that is paused or has failed",
            backfills::resume,
        )
        .says(200, "The backfill")
        .refused(404, "There is no such backfill")
        .refused(409, "It is neither")
        .refuses(SharedRefusal::StateAway),
        RouteOperation::post(
            "/api/v1/backfills/{id}/cancel",
            "Ends a backfill where it is",
            backfills::cancel,
        )
        .says(200, "The backfill")
        .refused(404, "There is no such backfill")
        .refused(409, "It has ended already")
        .refuses(SharedRefusal::StateAway),
    ]
}
