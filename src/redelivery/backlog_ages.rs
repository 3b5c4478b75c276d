//! How old the oldest event of each backlog is, for the metrics.

use std::collections::HashMap;
use std::time::Duration;

use tokio_postgres::Client;

use crate::endpoints::registry::snapshot::EndpointSnapshot;
use crate::flow::time::Timestamp;
use crate::store::overview;
use crate::store::overview::WaitingCounts;

/// Endpoints whose backlog's age is asked for at once.
const AGED_MAX: usize = 1000;

/// Says how old the oldest event of each backlog is; of a thousand of them at most.
pub(super) async fn look(snapshot: &EndpointSnapshot, client: &Client, slot: &str, now: Timestamp) {
    let parked = snapshot.listed.iter().filter(|shown| shown.metrics.pending_backlog.get() > 0);
    let names: Vec<&str> = parked.map(|shown| &*shown.endpoint.name).take(AGED_MAX).collect();
    let waiting = match names.is_empty() {
        true => Vec::new(),
        false => match overview::waiting(client, slot, &names).await {
            Ok(waiting) => waiting,
            Err(_away) => return,
        },
    };
    let waiting: HashMap<&str, &WaitingCounts> =
        waiting.iter().map(|waiting| (&*waiting.endpoint, waiting)).collect();
    for shown in &snapshot.listed {
        let found = waiting.get(&*shown.endpoint.name);
        let oldest = found.and_then(|waiting| waiting.oldest);
        let age = oldest.map_or(Duration::ZERO, |oldest| now.since(oldest));
        shown.metrics.oldest_pending.set(age.as_secs_f64());
    }
}
