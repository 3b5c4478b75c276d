//! Row types, which can change under a running stream.
//!
//! `ALTER TYPE ... ADD ATTRIBUTE` or `RENAME ATTRIBUTE` changes how values are written, and
//! PostgreSQL says nothing of it: no Relation message follows, since the table is as it was. So the
//! catalog is asked again for relations that have such columns.

use crate::replication::assemble::ChangeAssembler;
use crate::replication::pgoutput::PgOutput;
use crate::replication::types::TypeAnswers;
use crate::replication::types::TypeQuestions;

impl ChangeAssembler {
    /// The relation of a row with columns of row types, at any depth, and what to ask about it.
    pub(in crate::replication) fn questions_again(
        &self,
        message: &PgOutput,
    ) -> Option<(u32, TypeQuestions)> {
        let oid = match message {
            PgOutput::Insert { relation, .. }
            | PgOutput::Update { relation, .. }
            | PgOutput::Delete { relation, .. } => *relation,
            _ => return None,
        };
        let message = self.with_composites.get(&oid)?;
        Some((oid, Self::questions(message)))
    }

    /// Takes in what the catalog says by now. A relation that is the same stays the same, so that
    /// nothing is compiled anew for it.
    pub(in crate::replication) fn learn_again(&mut self, oid: u32, answers: &TypeAnswers) {
        let Some(message) = self.with_composites.get(&oid) else { return };
        let known = self.relations.get(&oid);
        let described = Self::described(message.clone(), answers);
        if known.is_none_or(|known| **known != described) {
            self.keep(described);
        }
    }
}
