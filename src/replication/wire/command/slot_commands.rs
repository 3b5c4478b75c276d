//! The commands about a slot: make it, keep it on standbys, drop it, look at it.

use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio_postgres::error::SqlState;

use crate::flow::lsn::Lsn;
use crate::flow::quote;
use crate::replication::diagnostic::SetupDiagnostic;
use crate::replication::error::SourceError;
use crate::replication::slot;
use crate::replication::slot::SlotStream;
use crate::replication::wire::command::FAILOVER_SINCE;
use crate::replication::wire::command::ReplicationConnection;
use crate::replication::wire::row::number;
use crate::replication::wire::row::text;

/// A slot that is to be made.
#[derive(Clone, Copy, Debug)]
pub struct NewSlot<'a> {
    pub name: &'a str,
    /// Ends with the connection.
    pub temporary: bool,
    /// Kept up on standbys; ignored before PostgreSQL 17.
    pub failover: bool,
}

/// What became of a slot that was to be altered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SlotChange {
    Changed,
    Unchanged,
}

/// What became of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SlotCreation {
    /// Changes committed after this position will be sent.
    Created { consistent: Lsn },
    /// There is one of that name already.
    Exists,
}

pub(super) fn create_slot_command(slot: NewSlot<'_>, major: u32) -> String {
    let name = quote::identifier(slot.name);
    let temporary = if slot.temporary { " TEMPORARY" } else { "" };
    let command = format!("CREATE_REPLICATION_SLOT {name}{temporary} LOGICAL pgoutput");
    match major {
        ..15 => format!("{command} NOEXPORT_SNAPSHOT"),
        17.. if slot.failover => format!("{command} (SNAPSHOT 'nothing', FAILOVER true)"),
        _ => format!("{command} (SNAPSHOT 'nothing')"),
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> ReplicationConnection<S> {
    /// Makes a slot for pgoutput.
    ///
    /// # Errors
    /// [`SetupDiagnostic::NoFreeSlot`], [`SetupDiagnostic::WalLevel`], [`SetupDiagnostic::NoReplicationRight`], or
    /// [`SetupDiagnostic::SlotBlocked`] after 30 s of waiting for older transactions.
    pub async fn create_slot(&mut self, slot: NewSlot<'_>) -> Result<SlotCreation, SourceError> {
        let command = create_slot_command(slot, self.version / 10_000);
        let error = match self.query(&command).await? {
            Ok(rows) => {
                let row = rows.into_iter().next().unwrap_or_default();
                return Ok(SlotCreation::Created { consistent: number(&row, 1)? });
            }
            Err(error) => error,
        };
        let name = slot.name.to_owned();
        Err(match &error.sqlstate {
            state if *state == SqlState::DUPLICATE_OBJECT => return Ok(SlotCreation::Exists),
            state if *state == SqlState::LOCK_NOT_AVAILABLE => {
                SetupDiagnostic::SlotBlocked { slot: name }.into()
            }
            state if *state == SqlState::INSUFFICIENT_PRIVILEGE => {
                SetupDiagnostic::NoReplicationRight { role: self.user.clone(), service: None }
                    .into()
            }
            state if *state == SqlState::CONFIGURATION_LIMIT_EXCEEDED => {
                let max = self.setting("max_replication_slots").await?.parse().unwrap_or(0);
                SetupDiagnostic::NoFreeSlot { max }.into()
            }
            // From 19 on the slot itself raises it from `replica`.
            _ => match self.setting("wal_level").await? {
                level if level != "logical" && (self.version < 190_000 || level == "minimal") => {
                    SetupDiagnostic::WalLevel { level, service: None }.into()
                }
                _ => SourceError::Server(error),
            },
        })
    }

    /// Has standbys keep a slot that is there, from now on. Does nothing to one that they keep already.
    ///
    /// # Errors
    /// [`SetupDiagnostic::NoFailover`] before PostgreSQL 17 and on a standby, [`SetupDiagnostic::SlotInUse`],
    /// [`SetupDiagnostic::SlotMissing`], [`SetupDiagnostic::NoReplicationRight`].
    pub async fn keep_on_standbys(&mut self, slot: &str) -> Result<SlotChange, SourceError> {
        let major = self.version / 10_000;
        if major < FAILOVER_SINCE {
            return Err(SetupDiagnostic::NoFailover { version: major, standby: false }.into());
        }
        if self.slot(slot).await?.is_some_and(|found| found.failover) {
            return Ok(SlotChange::Unchanged);
        }
        let command = format!("ALTER_REPLICATION_SLOT {} (FAILOVER true)", quote::identifier(slot));
        match self.query(&command).await? {
            Ok(_) => Ok(SlotChange::Changed),
            Err(error) if error.sqlstate == SqlState::INSUFFICIENT_PRIVILEGE => {
                Err(SetupDiagnostic::NoReplicationRight { role: self.user.clone(), service: None }
                    .into())
            }
            Err(error) => {
                let on_standby = self.query_rows("SELECT pg_is_in_recovery()").await?;
                let row = on_standby.into_iter().next().unwrap_or_default();
                if text(&row, 0)? == "t" {
                    return Err(
                        SetupDiagnostic::NoFailover { version: major, standby: true }.into()
                    );
                }
                Err(self.why_not(slot, error).await?)
            }
        }
    }

    /// Drops a slot that this connection or an earlier one of ours has made.
    ///
    /// # Errors
    /// The server's, for example that the slot is in use.
    pub async fn drop_slot(&mut self, slot: &str) -> Result<(), SourceError> {
        let command = format!("DROP_REPLICATION_SLOT {}", quote::identifier(slot));
        self.query_rows(&command).await.map(drop)
    }

    /// What the catalog says about a slot; `None` if there is none of that name.
    ///
    /// # Errors
    /// The server's, or a broken connection.
    pub async fn slot(&mut self, slot: &str) -> Result<Option<SlotStream>, SourceError> {
        let rows = self.query_rows(&slot::query(slot)).await?;
        Ok(rows.first().map(|row| {
            SlotStream::from_row(slot, |index| row.get(index).and_then(|column| column.as_deref()))
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_made_in_each_versions_own_words() {
        let lasting = NewSlot { name: "w", temporary: false, failover: true };
        let temporary = NewSlot { name: "w", temporary: true, failover: false };
        let cases = [
            (lasting, 14, r#"CREATE_REPLICATION_SLOT "w" LOGICAL pgoutput NOEXPORT_SNAPSHOT"#),
            (lasting, 15, r#"CREATE_REPLICATION_SLOT "w" LOGICAL pgoutput (SNAPSHOT 'nothing')"#),
            (
                lasting,
                17,
                r#"CREATE_REPLICATION_SLOT "w" LOGICAL pgoutput (SNAPSHOT 'nothing', FAILOVER true)"#,
            ),
            (
                temporary,
                18,
                r#"CREATE_REPLICATION_SLOT "w" TEMPORARY LOGICAL pgoutput (SNAPSHOT 'nothing')"#,
            ),
        ];
        for (slot, major, expected) in cases {
            assert_eq!(create_slot_command(slot, major), expected);
        }
    }
}
