//! The course of the demo: members start and share, one is killed, the other takes over, everything has come.

use std::num::NonZeroU16;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::MissedTickBehavior;
use tokio::time::interval;

use crate::cli::demo::relay::delivery_count::DeliveryCount;
use crate::cli::demo::relay::member_process::MemberProcess;
use crate::cli::demo::writer::DemoWriter;
use crate::cli::receive::server::ReceivedRequest;
use crate::cli::terminal;
use crate::cli::terminal::Colours;
use crate::config::configuration::Settings;
use crate::store;
use crate::store::SqlSession;
use crate::store::source_members;
use crate::store::source_members::SourceView;

/// Receivers as there might be; two in each partition, so that no worker is without.
pub(super) const ENDPOINTS: &[&str] =
    &["crm", "billing", "search", "mail", "audit", "stock", "reports", "support"];

/// Half of them for each worker.
pub(super) const PARTITIONS: NonZeroU16 = NonZeroU16::new(4).expect("4 is not 0");

const WORKERS: [&str; 2] = ["worker 1", "worker 2"];
const TAIL: &str = "tail";

/// Between two rows.
const PACE: Duration = Duration::from_millis(50);

/// Between two lines of what has come.
const LINE_EVERY: Duration = Duration::from_secs(1);

/// Between two looks at who has what.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What each worker has to have delivered before one is killed.
const SHARED_MIN: u64 = 150;

/// What is going on.
enum CoursePhase {
    Sharing,
    /// A worker was killed then.
    Killed(Instant),
    /// No more rows: what is under way has to come.
    Draining,
}

/// The demo while it runs.
pub(super) struct RelayCourse<'a> {
    settings: &'a Settings,
    /// The text of the settings, for the members.
    configuration: &'a str,
    /// In the order in which they are to be stopped: the tail last.
    members: &'a mut Vec<MemberProcess>,
    count: DeliveryCount,
    phase: CoursePhase,
    colours: Colours,
}

impl<'a> RelayCourse<'a> {
    pub(super) fn new(
        settings: &'a Settings,
        configuration: &'a str,
        members: &'a mut Vec<MemberProcess>,
    ) -> Self {
        let (count, colours) = (DeliveryCount::new(ENDPOINTS), Colours::detect());
        Self { settings, configuration, members, count, phase: CoursePhase::Sharing, colours }
    }

    /// # Errors
    /// A member ends by itself, or something comes that must not.
    pub(super) async fn run(
        mut self,
        session: SqlSession,
        mut received: mpsc::Receiver<ReceivedRequest>,
    ) -> anyhow::Result<()> {
        self.start().await?;
        let mut writer = DemoWriter::new(session, PACE);
        let mut lines = interval(LINE_EVERY);
        let mut looks = interval(LOOK_EVERY);
        for ticks in [&mut lines, &mut looks] {
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        }
        lines.tick().await; // at once, when nothing has come yet
        loop {
            let writes = !matches!(self.phase, CoursePhase::Draining);
            tokio::select! {
                // The statement itself is not given up when something arrives meanwhile.
                () = writer.tick(), if writes => {
                    let row = writer.insert().await.context("cannot insert the demo's rows")?;
                    if row.wallet_code.is_some() {
                        self.count.inserted(row.id);
                    }
                }
                Some(received) = received.recv() => self.count.arrived(&received)?,
                _ = lines.tick() => terminal::line(&self.colours.faint(&self.progress()))?,
                _ = looks.tick() => self.look().await?,
            }
            let is_complete = self.count.come() == self.count.wanted();
            if matches!(self.phase, CoursePhase::Draining) && is_complete {
                return self.close();
            }
        }
    }

    /// Starts the workers, and the tail when both are known: so each takes its share at once.
    async fn start(&mut self) -> anyhow::Result<()> {
        for name in WORKERS {
            self.start_member(name, "deliver").await?;
        }
        while self.seen().await?.members.iter().filter(|one| one.row.is_alive).count()
            < WORKERS.len()
        {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        self.start_member(TAIL, "tail").await?;
        let shared = loop {
            let seen = self.seen().await?;
            let is_given = seen.partitions.is_some() && seen.at_source.is_empty();
            if is_given && seen.unowned.is_empty() {
                break seen;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        };
        for member in self.members.iter_mut() {
            let place = format!("http://{}/, pid {}", member.address().await?, member.id());
            let owned = owned_by(&shared, member);
            let does = match owned.is_empty() {
                true => "reads the slot".to_owned(),
                false => format!("delivers for partitions {}", list(&owned)),
            };
            terminal::line(&format!("{:<12} {place}: {does}", member.name()))?;
        }
        terminal::line("")?;
        terminal::line(&format!(
            "Each row inserted into ocr_wallet_info goes to {} endpoints, which fall into {PARTITIONS} partitions.",
            ENDPOINTS.len()
        ))?;
        terminal::line("The workers share them; then one is killed. Ctrl-C ends and cleans up.")?;
        Ok(terminal::line("")?)
    }

    async fn start_member(&mut self, name: &'static str, role: &'static str) -> anyhow::Result<()> {
        let configuration = self.configuration.to_owned();
        let started =
            spawn_blocking(move || MemberProcess::start(name, role, &configuration)).await??;
        self.members.push(started);
        Ok(())
    }

    /// Who delivers, as `walhook members` shows it; all members have to live.
    async fn seen(&mut self) -> anyhow::Result<SourceView> {
        self.members.iter_mut().try_for_each(MemberProcess::require_alive)?;
        let session = store::connect(&self.settings.state).await?;
        Ok(source_members::load(&session.client, &self.settings.postgres.slot).await?)
    }

    /// Goes on to the next phase when it is time.
    async fn look(&mut self) -> anyhow::Result<()> {
        let [victim, heir] = WORKERS;
        match self.phase {
            CoursePhase::Sharing => {
                self.members.iter_mut().try_for_each(MemberProcess::require_alive)?;
                if WORKERS.iter().any(|name| self.count.of_member(name) < SHARED_MIN) {
                    return Ok(());
                }
                terminal::line(&self.progress())?;
                let killed = self.members.iter_mut().find(|member| member.name() == victim);
                killed.context("the worker to be killed has not started")?.kill();
                self.phase = CoursePhase::Killed(Instant::now());
                let lease = self.settings.postgres.wal_sender_timeout.as_secs();
                let text = format!("{victim} is killed (kill -9): its leases last up to {lease} s");
                terminal::line(&self.colours.bad(&text))?;
            }
            CoursePhase::Killed(at) => {
                let seen = self.seen().await?;
                let heirs = self.members.iter().filter(|member| member.name() == heir);
                let owned: Vec<i32> = heirs.flat_map(|member| owned_by(&seen, member)).collect();
                if owned.len() < usize::from(PARTITIONS.get()) {
                    return Ok(());
                }
                let seconds = at.elapsed().as_secs_f64();
                let text = format!(
                    "{heir} has taken over after {seconds:.1} s: it delivers for partitions {}",
                    list(&owned)
                );
                terminal::line(&self.colours.good(&text))?;
                self.phase = CoursePhase::Draining;
            }
            CoursePhase::Draining => {
                self.members.iter_mut().try_for_each(MemberProcess::require_alive)?;
            }
        }
        Ok(())
    }

    fn progress(&self) -> String {
        let of: Vec<String> = WORKERS
            .iter()
            .map(|name| format!("{name} {:>5}", self.count.of_member(name)))
            .collect();
        let (come, wanted) = (self.count.come(), self.count.wanted());
        format!("deliveries {come:>5} of {wanted:>5}   {}", of.join("   "))
    }

    fn close(&self) -> anyhow::Result<()> {
        terminal::line(&self.progress())?;
        terminal::line("")?;
        let text = format!(
            "{} rows at {} endpoints: all {} deliveries have come, each with a valid signature",
            self.count.rows(),
            ENDPOINTS.len(),
            self.count.come()
        );
        terminal::line(&self.colours.good(&text))?;
        let text = match self.count.repeated() {
            0 => "none of them came twice".to_owned(),
            repeated => format!(
                "{repeated} of them came twice, with the same ids: what the worker that was killed had not \
                 written down yet"
            ),
        };
        Ok(terminal::line(&text)?)
    }
}

/// The partitions of a member.
fn owned_by(seen: &SourceView, member: &MemberProcess) -> Vec<i32> {
    // As the process calls itself.
    let end = format!(", pid {}", member.id());
    let found = seen.members.iter().find(|one| one.row.name.ends_with(&end));
    found.map(|one| one.partitions.clone()).unwrap_or_default()
}

fn list(numbers: &[i32]) -> String {
    numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::partition::PartitionNumber;
    use std::collections::BTreeMap;

    #[test]
    fn each_partition_has_endpoints_so_that_each_worker_has_something_to_deliver() {
        let mut endpoints: BTreeMap<i32, usize> = BTreeMap::new();
        for name in ENDPOINTS {
            let partition = PartitionNumber::of_endpoint(name, PARTITIONS);
            *endpoints.entry(partition.raw()).or_default() += 1;
        }
        assert_eq!(endpoints.len(), usize::from(PARTITIONS.get()), "{endpoints:?}");
    }
}
