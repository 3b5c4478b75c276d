//! The stream of changes of one slot, kept alive.
//!
//! ```text
//! socket ─▶ wire ─ WireFrame ─▶ pgoutput ─▶ assemble ─ CapturedItem ─▶ pump
//! confirmed LSN ─▶ feedback ─▶ socket
//! ```
//!
//! [`ReplicationSource`] connects anew with growing, jittered waits when the connection is lost, and gives up
//! only when waiting cannot help. After a loss PostgreSQL sends again whatever was not confirmed:
//! who takes the changes has to know which of them it has.

mod position_proof;
mod skip;

use std::io;
use std::time::Duration;

use tokio::time::Instant;

use crate::backoff::Backoff;
use crate::failpoint;
use crate::flow::change::CapturedItem;
use crate::flow::lsn::Lsn;
use crate::flow::time::whole_millis;
use crate::replication::assemble::ChangeAssembler;
use crate::replication::catalog_questions::CatalogAnswers;
use crate::replication::connection::ChangeStream;
use crate::replication::connection::SlotClaim;
use crate::replication::connection::SourceTerms;
use crate::replication::connection::connect;
use crate::replication::diagnostic::SetupDiagnostic;
use crate::replication::error::SourceError;
use crate::replication::pgoutput;
use crate::replication::pgoutput::PgOutput;
use crate::replication::reader::DecodeError;
use crate::replication::reconnect::RECONNECT_CAP;
use crate::replication::reconnect::RECONNECT_FIRST;
use crate::replication::reconnect::reconnect;
use crate::replication::types::TypeAnswers;
use crate::replication::wire::command::SystemIdentity;
use crate::replication::wire::frame::WireFrame;

/// How long a start waits for a slot, or a walsender, that is still held: a walhook that was killed
/// a moment ago holds them until the server has noticed. Less than the 5 s within which a start
/// that cannot succeed has to say so.
const HELD_MAX: Duration = Duration::from_secs(3);

/// Between two looks at it.
const HELD_PAUSE: Duration = Duration::from_millis(50);

/// How long the goodbye to the server may take.
const GOODBYE_MAX: Duration = Duration::from_millis(500);

/// Reads the changes of one slot, and connects again when the connection is lost.
pub(crate) struct ReplicationSource {
    terms: SourceTerms,
    identity: SystemIdentity,
    /// Without one nobody else is looked for.
    claim: Option<SlotClaim>,
    stream: Option<ChangeStream>,
    backoff: Backoff,
    catalog: CatalogAnswers,
    /// When the server may be asked again how far it has come.
    proof_due: Instant,
}

impl ReplicationSource {
    /// Connects and starts streaming. The publication and a lasting slot have to be there: a slot
    /// that is missing means that changes are lost, which is not for this one to hide.
    ///
    /// # Errors
    /// Whatever stands in the way, also if waiting might help: at a start the operator wants to
    /// know. Only for what the process before it may hold there is a wait of 3 s.
    pub(crate) async fn open(terms: SourceTerms) -> Result<Self, SourceError> {
        let (stream, identity) = connect_when_free(&terms).await?;
        stream.grant(&terms.slot_ownership);
        Ok(Self {
            terms,
            identity,
            claim: None,
            stream: Some(stream),
            backoff: Backoff::new(RECONNECT_FIRST, RECONNECT_CAP),
            catalog: CatalogAnswers::default(),
            proof_due: Instant::now(),
        })
    }

    /// From here on, a connection that is made anew has to find the slot still ours.
    pub(crate) fn claim(&mut self, claim: SlotClaim) {
        self.claim = Some(claim);
    }

    /// Who the server was when we first connected; it is the same one still.
    pub(crate) fn identity(&self) -> &SystemIdentity {
        &self.identity
    }

    /// Whether more is on its way already, as far as the stream itself tells.
    pub(crate) fn expects_more(&self) -> bool {
        let expects =
            |stream: &ChangeStream| !stream.pending.is_empty() || stream.frames.expects_more();
        self.stream.as_ref().is_some_and(expects)
    }

    /// Waits for what comes next and appends all that is at hand to `captured`. Cancellation-safe:
    /// nothing is lost if the future is dropped.
    ///
    /// # Errors
    /// What waiting cannot mend.
    pub(crate) async fn next(
        &mut self,
        captured: &mut Vec<CapturedItem>,
    ) -> Result<(), SourceError> {
        loop {
            let error = match self.advance(captured).await {
                Ok(()) if captured.is_empty() => continue,
                Ok(()) => return Ok(()),
                Err(error) => self.with_transaction(error),
            };
            self.terms.slot_ownership.lost();
            self.stream = None;
            self.catalog.close();
            let error = match self.skip(error, captured).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            if !error.may_be_mended() {
                return Err(self.with_range(error));
            }
            let wait = self.backoff.next();
            let error = anyhow::Error::new(error);
            let reason = format!("{error:#}");
            let wait_ms = whole_millis(wait);
            tracing::warn!(error = %reason, wait_ms, "replication interrupted, connecting again");
            self.terms.status.waiting(reason);
            tokio::time::sleep(wait).await;
            if !captured.is_empty() {
                return Ok(()); // what came before the loss is good
            }
        }
    }

    async fn advance(&mut self, captured: &mut Vec<CapturedItem>) -> Result<(), SourceError> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            none => {
                let stream =
                    reconnect(&mut self.terms, &self.identity, self.claim.as_ref()).await?;
                stream.grant(&self.terms.slot_ownership);
                tracing::info!(slot = self.terms.settings.slot, "replication resumed");
                none.insert(stream)
            }
        };
        if stream.pending.is_empty() {
            let proof = stream.unproven.map(|_| self.proof_due);
            tokio::select! {
                biased;
                read = stream.frames.read(&mut stream.read) => read?,
                () = sleep_until(proof) => {}
            }
            stream.pending.extend(stream.read.drain(..));
            stream.asked_again.clear();
            self.backoff.reset();
        }
        let server = &self.terms.settings.server;
        while let Some(frame) = stream.pending.front() {
            // The question is asked while the frame is still in its place, so that nothing is
            // lost if this future is dropped while it waits.
            let message = decoded(frame)?;
            position_proof::judge(&mut stream.positions, frame, message.as_ref())?;
            let xid = stream.assembler.open_transaction_id();
            let answers = match &message {
                Some(PgOutput::Relation(relation)) => {
                    let questions = ChangeAssembler::questions(relation);
                    Some(self.catalog.answer(server, &questions, xid).await?)
                }
                Some(row) => {
                    if let Some((oid, questions)) = stream.assembler.questions_again(row)
                        && !stream.asked_again.contains(&oid)
                    {
                        let answers = self.catalog.answer(server, &questions, xid).await?;
                        stream.assembler.learn_again(oid, &answers);
                        stream.asked_again.push(oid);
                    }
                    None
                }
                None => None,
            };
            if let Some(frame) = stream.pending.pop_front() {
                stream.take(frame, message, answers, captured)?;
            }
        }
        self.prove(captured).await?;
        Ok(())
    }

    /// Says from where on changes cannot be read, where the connection does not know.
    fn with_range(&self, error: SourceError) -> SourceError {
        let confirmed = *self.terms.confirmed.borrow();
        match error {
            SourceError::Refused(SetupDiagnostic::PublicationGone {
                publication,
                slot,
                from: None,
                since,
                nearest,
            }) => {
                let from = Some(confirmed).filter(|confirmed| *confirmed > Lsn::ZERO);
                SetupDiagnostic::PublicationGone { publication, slot, from, since, nearest }.into()
            }
            other => other,
        }
    }

    /// Tells the server the last confirmed position and ends the stream, so that a restart begins
    /// exactly there and finds the slot free.
    pub(crate) async fn finish(mut self) {
        let Some(mut stream) = self.stream.take() else { return };
        stream.stop_feedback.cancel();
        let goodbye = async {
            while let Some(ended) = stream.feedback.join_next().await {
                ended.map_err(io::Error::other).map_err(SourceError::Disconnected)??;
            }
            stream.frames.finish(GOODBYE_MAX).await
        };
        if let Err(error) = goodbye.await {
            let error = anyhow::Error::new(error);
            tracing::debug!(error = %format!("{error:#}"), "the server did not say goodbye");
        }
    }
}

/// Connects; waits up to `HELD_MAX` for another process to let go.
async fn connect_when_free(
    terms: &SourceTerms,
) -> Result<(ChangeStream, SystemIdentity), SourceError> {
    let deadline = Instant::now() + HELD_MAX;
    let mut told = false;
    loop {
        match connect(terms).await {
            Err(SourceError::Refused(
                held
                @ (SetupDiagnostic::SlotInUse { .. } | SetupDiagnostic::NoFreeWalSender { .. }),
            )) if Instant::now() < deadline => {
                if !std::mem::replace(&mut told, true) {
                    let (held, wait_s) = (held.what(), HELD_MAX.as_secs());
                    tracing::info!(held, wait_s, "waiting for the one before to let go");
                }
                tokio::time::sleep(HELD_PAUSE).await;
            }
            outcome => return outcome,
        }
    }
}

fn decoded(frame: &WireFrame) -> Result<Option<PgOutput>, SourceError> {
    match frame {
        WireFrame::Data { payload, .. } => {
            let protocol = |error: DecodeError| SourceError::Protocol { what: error.to_string() };
            pgoutput::decode(payload).map(Some).map_err(protocol)
        }
        WireFrame::Keepalive { .. } => Ok(None),
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

impl ChangeStream {
    fn take(
        &mut self,
        frame: WireFrame,
        message: Option<PgOutput>,
        answers: Option<TypeAnswers>,
        captured: &mut Vec<CapturedItem>,
    ) -> Result<(), SourceError> {
        match (frame, message) {
            (WireFrame::Keepalive { end, .. }, _) if self.positions.covers(end) => {
                position_proof::contradict(self.unproven.take(), end)?;
                captured.extend(self.assembler.idle(end));
            }
            (WireFrame::Keepalive { end, .. }, _) => {
                position_proof::contradict(self.unproven, end)?;
                self.unproven = self.assembler.idle(end).map(|_idle| end);
            }
            (WireFrame::Data { .. }, Some(PgOutput::Relation(relation))) => {
                self.assembler.learn(relation, &answers.unwrap_or_default());
            }
            (WireFrame::Data { payload, held, .. }, Some(message)) => {
                if let PgOutput::Begin { final_lsn, .. } = &message {
                    // Its commit says more.
                    position_proof::contradict(self.unproven.take(), *final_lsn)?;
                    failpoint::reached("begin_seen");
                }
                let taken = self.assembler.accept(message, &payload, held, captured);
                taken.map_err(|error| SourceError::Protocol { what: error.to_string() })?;
            }
            (WireFrame::Data { .. }, None) => {}
        }
        Ok(())
    }
}
