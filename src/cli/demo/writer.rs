//! The demo's application: inserts rows, as an OCR service would.

use std::time::Duration;
use std::time::Instant;

use tokio::time::Interval;
use tokio::time::MissedTickBehavior;
use tokio::time::interval;

use crate::store::SqlSession;

/// Every so many rows nothing was recognised: such a row must not arrive.
const UNRECOGNISED_EVERY: u64 = 5;

const NAMES: [&str; 4] = ["张三", "Ada", "Grace \"Amazing\" Hopper", "Łukasz"];

const INSERT: &str = "
    INSERT INTO ocr_wallet_info
        (source_ip, msg_id, group_id, wallet_code, serial_no, wx_id, wx_nick_name, pic_url)
    VALUES ('192.168.1.100', $1, 'group123@chatroom', $2, $3, 'user123', $4, $5)
    RETURNING id";

/// A row that was committed.
#[derive(Debug)]
pub(crate) struct DemoRow {
    pub(crate) id: i64,
    /// `None`: nothing was recognised.
    pub(crate) wallet_code: Option<String>,
    /// When the statement was sent off.
    pub(crate) sent: Instant,
}

pub(crate) struct DemoWriter {
    session: SqlSession,
    ticks: Interval,
    count: u64,
}

impl DemoWriter {
    pub(crate) fn new(session: SqlSession, pace: Duration) -> Self {
        let mut ticks = interval(pace);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { session, ticks, count: 0 }
    }

    /// Waits until the next row is due; may be given up without a trace.
    pub(crate) async fn tick(&mut self) {
        self.ticks.tick().await;
    }

    /// Inserts a row.
    pub(crate) async fn insert(&mut self) -> Result<DemoRow, tokio_postgres::Error> {
        self.count += 1;
        let count = self.count;
        let recognised = !count.is_multiple_of(UNRECOGNISED_EVERY);
        let wallet_code = recognised.then(|| format!("WALLET{count:06}"));
        let name = usize::try_from(count).ok().and_then(|n| NAMES.get(n % NAMES.len()));
        let picture =
            count.is_multiple_of(2).then(|| format!("https://minio.example.com/{count}.jpg"));
        let (message, serial) = (format!("{count}"), format!("SN{count:09}"));
        let sent = Instant::now();
        let row = self
            .session
            .client
            .query_one(INSERT, &[&message, &wallet_code, &serial, &name, &picture])
            .await?;
        Ok(DemoRow { id: row.try_get(0)?, wallet_code, sent })
    }
}
