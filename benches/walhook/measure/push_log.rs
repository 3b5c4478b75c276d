//! A long push log: whether deliveries become slower with the rows that are there already.

use crate::measure::Bench;
use crate::measure::MARK;
use crate::measure::SLOT;
use crate::measure::per_second;
use crate::measure::throughput::ratios;
use crate::program::Job;
use crate::program::Walhook;
use crate::report::Goal;

/// The rows of all days until now come into today's partition, which is the one that is written to.
/// Its indexes are made when it is attached, which takes a fraction of making them row by row.
const FILL: &str = "
    DO $$
    DECLARE
        today date := (now() AT TIME ZONE 'UTC')::date;
        day text := 'push_log_events_' || to_char(today, 'YYYYMMDD');
    BEGIN
        EXECUTE format('DROP TABLE IF EXISTS walhook.%I', day);
        EXECUTE format('CREATE TABLE walhook.%I (LIKE walhook.push_log_events INCLUDING DEFAULTS)', day);
        EXECUTE format('INSERT INTO walhook.%I (id, created_at, slot, endpoint, event_id, event_type,
                table_schema, table_name, row_key, retry_count, outcome, http_status, duration_ms,
                replay, request_headers)
            SELECT n, $1 + n * interval ''1 microsecond'', ''walhook'', ''e0'',
                ''evt_'' || lpad(to_hex(n), 40, ''0''), ''orders.created'', ''public'', ''orders'', n::text, 0,
                ''delivered'', 200, 1.5, false,
                ''{}''
            FROM generate_series(1, $2) n', day)
            USING today::timestamp AT TIME ZONE 'UTC', {rows};
        EXECUTE format('ALTER TABLE walhook.push_log_events ATTACH PARTITION walhook.%I FOR VALUES FROM (%L) TO (%L)',
            day, today::timestamp AT TIME ZONE 'UTC', (today + 1)::timestamp AT TIME ZONE 'UTC');
    END $$;
    CHECKPOINT";

impl Bench {
    pub(super) fn push_log(&mut self) -> anyhow::Result<()> {
        let empty = self.drains()?;
        // One that delivers nothing leaves the tables behind.
        self.stage.mark(MARK)?;
        self.stage.copy_slot(MARK, SLOT)?;
        let mut walhook = Walhook::start(&self.stage, SLOT, &Job::ReadOnly)?;
        walhook.wait_until_ready()?;
        self.stage.keeps_push_log.set(true);
        walhook.end(&self.stage)?;
        self.end_backlog()?;
        self.stage.run(&FILL.replace("{rows}", &self.plan.logged.to_string()))?;
        let full = self.drains()?;
        self.stage.keeps_push_log.set(false);
        self.stage.forget()?;
        let detail = format!("{} of {}", per_second(&full), per_second(&empty));
        let goal = Goal::AtLeast { must: 0.95, aim: 1.0 };
        let what = format!("push log of {} rows, over an empty one", self.plan.logged);
        self.row(&what, "", ratios(&full, &empty), goal, detail);
        Ok(())
    }

    /// Events per second, run by run. Each has events of its own, as in life: the log holds what was
    /// delivered before, and the same ids and keys once more go into pages that are full.
    fn drains(&self) -> anyhow::Result<Vec<f64>> {
        let events = self.plan.backlog;
        let drain = |_run| {
            self.backlog(events)?;
            let drain = self.drain(&self.one(), events)?;
            self.end_backlog()?;
            Ok(drain.per_second)
        };
        (0..self.plan.runs).map(drain).collect()
    }
}
