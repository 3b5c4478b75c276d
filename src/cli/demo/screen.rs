//! What the demo shows, and what its check counts.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Instant;

use anyhow::Context;
use serde_json::Value;

use crate::cli::demo::writer::DemoRow;
use crate::cli::receive::server::ReceivedRequest;
use crate::cli::receive::signature::SignatureVerdict;
use crate::cli::terminal;
use crate::cli::terminal::Colours;

pub(crate) struct DemoScreen {
    colours: Colours,
    /// Deliveries wanted by `--check`.
    wanted: Option<u64>,
    inserted: u64,
    delivered: u64,
    /// Rows that are on their way, by id: their code and when they were sent off.
    awaited: HashMap<i64, (String, Instant)>,
    /// Deliveries that came before their INSERT was known to be committed here.
    early: Vec<(i64, ReceivedRequest, Instant)>,
}

impl DemoScreen {
    pub(crate) fn new(wanted: Option<u64>) -> Self {
        Self {
            colours: Colours::detect(),
            wanted,
            inserted: 0,
            delivered: 0,
            awaited: HashMap::new(),
            early: Vec::new(),
        }
    }

    pub(crate) fn greet(&self, url: &str, receiver: &str, api: SocketAddr) -> std::io::Result<()> {
        terminal::line(&format!("database     {url}"))?;
        terminal::line(&format!("receiver     {receiver} (checks signatures, answers 200)"))?;
        terminal::line(&format!("page         http://{api}/"))?;
        terminal::line(&format!("stats        http://{api}/api/v1/webhook/stats"))?;
        terminal::line(&format!("metrics      http://{api}/metrics"))?;
        terminal::line("")?;
        terminal::line(
            "Each row inserted into ocr_wallet_info arrives at the receiver. Every fifth",
        )?;
        terminal::line("row has no wallet_code and must not. Ctrl-C ends and cleans up.")?;
        terminal::line("")
    }

    /// Whether rows are still to be written.
    pub(crate) fn more(&self) -> bool {
        self.wanted.is_none_or(|wanted| self.delivered < wanted)
    }

    /// A row was committed; says whether another one is wanted.
    pub(crate) fn inserted(&mut self, row: DemoRow) -> anyhow::Result<bool> {
        self.inserted += 1;
        match row.wallet_code {
            Some(code) => {
                self.awaited.insert(row.id, (code, row.sent));
                if let Some(at) = self.early.iter().position(|(id, ..)| *id == row.id) {
                    let (id, received, arrived) = self.early.swap_remove(at);
                    self.show(id, &received, arrived)?;
                }
            }
            None => {
                let text = format!("id {:<5} no wallet_code: filtered", row.id);
                terminal::line(&self.colours.faint(&text))?;
            }
        }
        Ok(self.more())
    }

    /// A request arrived; says whether the check is met.
    pub(crate) fn arrived(&mut self, received: &ReceivedRequest) -> anyhow::Result<bool> {
        let arrived = Instant::now();
        let body: Value = serde_json::from_slice(&received.body).context("the body is not JSON")?;
        let id = body.pointer("/data/id").and_then(Value::as_i64).context("the body has no id")?;
        let code = body.pointer("/data/wallet_code").and_then(Value::as_str);
        anyhow::ensure!(code.is_some(), "row {id} arrived although nothing was recognised in it");
        if self.awaited.contains_key(&id) {
            self.show(id, received, arrived)?;
        } else {
            // The delivery was faster than the answer to the INSERT.
            self.early.push((id, received.clone(), arrived));
        }
        Ok(self.wanted.is_some_and(|wanted| self.delivered >= wanted))
    }

    fn show(
        &mut self,
        id: i64,
        received: &ReceivedRequest,
        arrived: Instant,
    ) -> anyhow::Result<()> {
        let Some((code, sent)) = self.awaited.remove(&id) else { return Ok(()) };
        let millis = arrived.saturating_duration_since(sent).as_secs_f64() * 1e3;
        let (verified, mark) = match received.signature {
            SignatureVerdict::Ok => (true, self.colours.good("signature ok")),
            SignatureVerdict::NotChecked
            | SignatureVerdict::Missing
            | SignatureVerdict::Wrong(_) => (false, self.colours.bad("signature WRONG")),
        };
        let status = received.status_answered.as_u16();
        let event = received.id().unwrap_or("no id");
        terminal::line(&format!(
            "id {id:<5} {code}  {status}  {millis:>6.1} ms  {mark}  {}",
            self.colours.faint(event)
        ))?;
        anyhow::ensure!(verified, "a delivery came without a valid signature");
        self.delivered += 1;
        Ok(())
    }
}
