//! The way of reports to the ledger, bounded by what they hold.
//!
//! ```text
//! lane ─ room for what it has to tell ─▶ [queue] ─▶ ledger
//! ```
//!
//! One lane's report may hold dozens of responses, and those of a thousand lanes one each. Were there places for so many
//! reports, the second kind would wait: whoever is given a place takes it only when its turn comes on a thread
//! that a thousand lanes share, and so few go on in each round.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::sync::SemaphorePermit;
use tokio::sync::mpsc;

use crate::flow::settlement::LaneReport;

/// The room for what waits for a ledger ([`LaneReport::room`]): the lanes go on while it hands a flush to the database, or has
/// to wait for a processor. With a quarter of it one lane stands still for an eighth of a flood, and with room for few
/// reports a thousand lanes stand still for a second, while what they were answered is not committed. It holds 4 MiB of responses.
pub(crate) const REPORT_ROOM: u16 = 1024;

/// Nobody takes reports any more.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("nobody takes reports any more")]
pub(crate) struct ReportsClosed;

/// A queue with this room for reports that wait; one that takes more than that waits alone.
pub fn report_queue(room: u16) -> (ReportSender, ReportReceiver) {
    let most = room.max(1);
    // None takes less than one, so whatever there is room for finds a place.
    let (sender, reports) = mpsc::channel(usize::from(most));
    let room = Arc::new(Semaphore::new(usize::from(most)));
    let queue = ReportSender { reports: sender, room: Arc::clone(&room), most };
    (queue, ReportReceiver { reports, room })
}

/// Where reports go. Clones go to the same ledger.
#[derive(Clone, Debug)]
pub struct ReportSender {
    reports: mpsc::Sender<WaitingReport>,
    room: Arc<Semaphore>,
    /// All the room that there is.
    most: u16,
}

#[derive(Debug)]
struct WaitingReport {
    report: LaneReport,
    /// What it takes of the room.
    takes: u16,
}

/// Room for one report; it is free again for others if nothing is sent.
#[derive(Debug)]
pub(crate) struct ReportPlace<'s> {
    reports: &'s mpsc::Sender<WaitingReport>,
    room: SemaphorePermit<'s>,
    takes: u16,
}

/// Where they come out.
#[derive(Debug)]
pub struct ReportReceiver {
    reports: mpsc::Receiver<WaitingReport>,
    room: Arc<Semaphore>,
}

impl ReportSender {
    /// Waits for so much room ([`LaneReport::room`]).
    ///
    /// # Errors
    /// The receiver is gone.
    pub(crate) async fn reserve(&self, room: usize) -> Result<ReportPlace<'_>, ReportsClosed> {
        let takes = u16::try_from(room).unwrap_or(u16::MAX).clamp(1, self.most);
        let room = self.room.acquire_many(u32::from(takes)).await.map_err(|_| ReportsClosed)?;
        Ok(ReportPlace { reports: &self.reports, room, takes })
    }

    /// Waits for room, and sends.
    ///
    /// # Errors
    /// The receiver is gone.
    pub(crate) async fn send(&self, report: LaneReport) -> Result<(), ReportsClosed> {
        self.reserve(report.room()).await?.send(report);
        Ok(())
    }
}

impl ReportPlace<'_> {
    /// Sends a report. If the receiver has gone since there was room, nobody takes it.
    pub(crate) fn send(self, report: LaneReport) {
        let Self { reports, room, takes } = self;
        if reports.try_send(WaitingReport { report, takes }).is_ok() {
            room.forget();
        }
    }
}

impl ReportReceiver {
    /// The next report; `None` when all senders are gone and nothing is left. May be cancelled.
    pub async fn recv(&mut self) -> Option<LaneReport> {
        let waited = self.reports.recv().await?;
        Some(self.taken(waited))
    }

    /// The next one, if it is there.
    pub(crate) fn try_recv(&mut self) -> Option<LaneReport> {
        let waited = self.reports.try_recv().ok()?;
        Some(self.taken(waited))
    }

    fn taken(&self, WaitingReport { report, takes }: WaitingReport) -> LaneReport {
        self.room.add_permits(usize::from(takes));
        report
    }
}

impl Drop for ReportReceiver {
    fn drop(&mut self) {
        self.room.close();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use futures_util::FutureExt;

    use super::*;
    use crate::flow::headers::HeaderLines;
    use crate::flow::lease::Lease;
    use crate::flow::lease::LeaseId;
    use crate::flow::relation::TableName;
    use crate::flow::settlement::DeliveryAttempt;
    use crate::flow::settlement::EndpointIndex;
    use crate::flow::settlement::RelayedDelivery;
    use crate::flow::time::Timestamp;
    use crate::flow::verdict::AttemptReach;
    use crate::flow::verdict::AttemptVerdict;
    use crate::flow::verdict::HttpExchange;

    /// With the first of so many numbers, to tell it by.
    fn report(first: u64, rows: u64) -> LaneReport {
        let table = Arc::new(TableName::new("public", "t"));
        let one = |sequence| {
            let (endpoint, table) = (EndpointIndex(0), Arc::clone(&table));
            RelayedDelivery { sequence, endpoint, table }
        };
        let relayed = (first..first + rows).map(one).collect();
        LaneReport { relayed, ..LaneReport::default() }
    }

    /// With a response of so many bytes.
    fn answered(bytes: usize) -> LaneReport {
        let exchange = HttpExchange {
            verdict: AttemptVerdict::Delivered,
            reach: AttemptReach::Endpoint,
            requests: 1,
            failure: None,
            status: Some(200),
            took: Duration::ZERO,
            request_headers: HeaderLines::default(),
            response_headers: HeaderLines::default(),
            response_body: vec![b'.'; bytes].into(),
        };
        let lease = Lease { id: LeaseId(0), attempt: 1, replay: false, events: Vec::new() };
        let (endpoint, finished) = (EndpointIndex(0), Timestamp::from_micros(0));
        let attempt = DeliveryAttempt { endpoint, lease, exchange, finished, retry_in: None };
        LaneReport { attempts: vec![attempt], ..LaneReport::default() }
    }

    fn is_sent(sender: &ReportSender, report: LaneReport) -> bool {
        sender.send(report).now_or_never().is_some()
    }

    #[test]
    fn what_they_hold_bounds_them_and_not_how_many_they_are() {
        let (sender, mut receiver) = report_queue(8);
        assert!(is_sent(&sender, LaneReport::default()), "one with nothing counts, too");
        assert!((0..7).all(|number| is_sent(&sender, report(number, 1))));
        assert!(!is_sent(&sender, report(7, 1)), "there are eight");
        receiver.try_recv().unwrap();
        assert!(!is_sent(&sender, report(7, 2)));
        assert!(is_sent(&sender, report(7, 1)));
        let firsts: Vec<u64> = std::iter::from_fn(|| receiver.try_recv())
            .map(|report| report.relayed[0].sequence)
            .collect();
        assert_eq!(firsts, (0..8).collect::<Vec<u64>>(), "in order");
        assert!(is_sent(&sender, report(0, 1000)), "there is room for all of them");
        assert!(!is_sent(&sender, report(0, 1)), "but it is alone");
        assert_eq!(receiver.try_recv().unwrap().relayed.len(), 1000);
        drop(sender.reserve(8).now_or_never().unwrap().unwrap());
        assert!(is_sent(&sender, report(0, 8)), "what is not used is free again");
    }

    #[test]
    fn responses_take_room_by_their_bytes() {
        let (sender, mut receiver) = report_queue(20);
        assert_eq!((answered(4095).room(), answered(64 * 1024).room()), (1, 17));
        assert!(is_sent(&sender, answered(64 * 1024)));
        assert!((0..3).all(|_| is_sent(&sender, answered(100))));
        assert!(!is_sent(&sender, answered(100)));
        receiver.try_recv().unwrap();
        assert!(is_sent(&sender, answered(64 * 1024)));
    }

    #[test]
    fn both_ends_learn_of_the_end_of_the_other() {
        let (sender, mut receiver) = report_queue(8);
        assert!(receiver.recv().now_or_never().is_none());
        assert!(is_sent(&sender, report(0, 8)));
        let waiting = sender.clone();
        let mut waits = Box::pin(waiting.send(report(8, 1)));
        assert!(waits.as_mut().now_or_never().is_none());
        drop(receiver);
        assert_eq!(waits.now_or_never(), Some(Err(ReportsClosed)));
        let (sender, mut receiver) = report_queue(8);
        assert!(is_sent(&sender, report(0, 1)));
        drop(sender);
        assert!(receiver.recv().now_or_never().unwrap().is_some(), "it came before");
        assert!(receiver.recv().now_or_never().unwrap().is_none());
    }
}
