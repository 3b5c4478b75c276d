//! A transaction that is in the WAL and that PostgreSQL cannot send: a character without a form in
//! UTF-8, a row too large for one message.
//!
//! It would fail again with every attempt. So it is named, with the one way past it, and what is
//! left out on the operator's word is booked as a gap in `walhook.gaps`.

use std::fmt;

use tokio_postgres::error::SqlState;

use crate::flow::lsn::Lsn;
use crate::flow::relation::TableName;
use crate::store::error::server_error::ServerError;

/// More tables are counted and not named.
const CANDIDATES_MAX: usize = 4;

/// The row that PostgreSQL cannot send, and why.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct UnsendableRow {
    pub slot: String,
    /// Where the transaction commits, which names it.
    pub commit: Option<Lsn>,
    /// Where the change stands that cannot be sent.
    pub at: Option<Lsn>,
    /// The table of that change.
    pub table: Option<TableName>,
    /// The table of the change before it, where its own is not known.
    pub after: Option<TableName>,
    /// The tables that it can be of, where nothing says more.
    pub candidates: Vec<TableName>,
    /// Changes of the transaction that were sent before it.
    pub sent: u32,
    pub cause: ServerError,
}

impl UnsendableRow {
    /// What PostgreSQL said at a place of its WAL.
    pub fn at(at: Option<Lsn>, cause: ServerError) -> Self {
        let (slot, commit, table, after, sent) = (String::new(), None, None, None, 0);
        Self { slot, commit, at, table, after, candidates: Vec::new(), sent, cause }
    }

    /// Where the server goes on without the transaction: it sends what commits there or later.
    pub fn beyond(&self) -> Option<Lsn> {
        Some(Lsn::from_raw(self.commit?.raw().saturating_add(1)))
    }

    /// What is missing, in words.
    pub fn missing(&self) -> String {
        let from = match self.sent {
            0 => String::from("all of it"),
            sent => format!("all but its first {sent} changes"),
        };
        match self.commit {
            Some(commit) => format!("{from} of the transaction that commits at {commit}"),
            None => format!("{from} of a transaction"),
        }
    }

    fn reason(&self) -> &'static str {
        let state = &self.cause.sqlstate;
        let is_of_text = *state == SqlState::UNTRANSLATABLE_CHARACTER
            || *state == SqlState::CHARACTER_NOT_IN_REPERTOIRE;
        let is_of_size = *state == SqlState::PROGRAM_LIMIT_EXCEEDED
            || *state == SqlState::OUT_OF_MEMORY
            || self.cause.message.contains("alloc request size");
        if is_of_text {
            "it has a character that has no form in UTF-8"
        } else if is_of_size {
            "it is larger than one message of PostgreSQL can be (1 GB, a bytea of half that)"
        } else {
            "PostgreSQL fails over it"
        }
    }
}

impl fmt::Display for UnsendableRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PostgreSQL cannot send a change")?;
        match (&self.table, &self.after) {
            (Some(table), _) => write!(f, " of table {table}")?,
            (None, Some(after)) => write!(f, ", the next after one of table {after}")?,
            (None, None) if self.candidates.len() > CANDIDATES_MAX => {
                write!(f, " of one of {} tables", self.candidates.len())?;
            }
            (None, None) if self.candidates.is_empty() => {}
            (None, None) => {
                let names: Vec<String> = self.candidates.iter().map(ToString::to_string).collect();
                write!(f, " of table {}", names.join(" or "))?;
            }
        }
        if let Some(at) = self.at {
            write!(f, " at {at}")?;
        }
        if let Some(commit) = self.commit {
            write!(f, " in the transaction that commits at {commit}")?;
        }
        write!(f, ": {} ({}). ", self.reason(), self.cause)?;
        match self.commit {
            Some(commit) => write!(
                f,
                "It is in the WAL and stays as it is: correct the row for the future, then start once \
                 with `walhook run --skip-transaction {commit}`, which goes on without this one \
                 transaction and books it in walhook.gaps; send from the table what is missing"
            ),
            None if self.at.is_some() => write!(
                f,
                "It is in the WAL and stays as it is. Find the commit of its transaction with \
                 pg_walinspect (docs/operations.md, \"When PostgreSQL cannot send a transaction\"), then \
                 start once with `walhook run --skip-transaction COMMIT`, which goes on without this \
                 one transaction and books it in walhook.gaps; correct the row or the publication's row \
                 filter for the future, and send from the table what is missing"
            ),
            None => write!(
                f,
                "Correct the row, and if the error comes again, look up the place in the server's log"
            ),
        }
    }
}

/// The position in an error's context, whatever its language: the last of its words that is one.
pub(crate) fn position_in(context: &str) -> Option<Lsn> {
    let is_of_position = |c: char| c.is_ascii_hexdigit() || c == '/';
    let words = context.rsplit(|c: char| !is_of_position(c));
    words.filter(|word| word.contains('/')).find_map(|word| word.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_position_is_found_in_the_context() {
        let english = "slot \"w\", output plugin \"pgoutput\", in the change callback, \
                       associated LSN 0/1A2B3C4";
        assert_eq!(position_in(english), Some(Lsn::from_raw(0x1A2_B3C4)));
        let german = "Slot »w«, im Callback change, zugehörige LSN 16/B374D848\nSQL »x«";
        assert_eq!(position_in(german), Some(Lsn::from_raw(0x16_B374_D848)));
        assert_eq!(position_in("and/or"), None);
        assert_eq!(position_in(""), None);
    }

    #[test]
    fn the_message_names_place_cause_and_next_step() {
        let cause = ServerError {
            sqlstate: SqlState::UNTRANSLATABLE_CHARACTER,
            message: String::from("character with byte sequence 0x81 has no equivalent"),
            hint: None,
        };
        let unsendable = UnsendableRow {
            commit: Some(Lsn::from_raw(0x20)),
            table: Some(TableName::new("public", "t")),
            sent: 2,
            ..UnsendableRow::at(Some(Lsn::from_raw(0x10)), cause)
        };
        let text = unsendable.to_string();
        for part in
            ["public.t", "at 0/10", "0x81", "22P05", "--skip-transaction 0/20", "walhook.gaps"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert_eq!(unsendable.beyond(), Some(Lsn::from_raw(0x21)));
        assert!(unsendable.missing().contains("first 2 changes"));
    }
}
