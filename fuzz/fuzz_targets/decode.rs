//! Any bytes as a stream of messages: decoded, assembled, and every field looked at.
//!
//! `cargo +nightly fuzz run decode -- -max_total_time=60`
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use walhook::testing::flow::change::CapturedItem;
use walhook::testing::flow::change::ChangeOp;
use walhook::testing::flow::change::RowTuple;
use walhook::testing::replication::assemble::ChangeAssembler;
use walhook::testing::replication::pgoutput::decode;

/// The input is a sequence of messages, each after its length in one byte: only so can a relation
/// be known when its rows come.
fn messages(input: &[u8]) -> impl Iterator<Item = Bytes> {
    let mut rest = input;
    std::iter::from_fn(move || {
        let (len, after) = rest.split_first()?;
        let (message, after) = after.split_at(after.len().min(usize::from(*len)));
        rest = after;
        Some(Bytes::copy_from_slice(message))
    })
}

fn touch(tuple: &RowTuple) {
    for column in 0..=tuple.len() {
        std::hint::black_box((tuple.value(column), tuple.shared(column)));
    }
}

fuzz_target!(|input: &[u8]| {
    let mut assembler = ChangeAssembler::new();
    let mut captured = Vec::new();
    for message in messages(input) {
        let Ok(decoded) = decode(&message) else { continue };
        let _refused = assembler.accept(decoded, &message, None, &mut captured);
    }
    for step in &captured {
        let CapturedItem::Change(change) = step else { continue };
        match &change.op {
            ChangeOp::Insert { new } | ChangeOp::Read { new, .. } => touch(new),
            ChangeOp::Update { old, new } => {
                old.iter().for_each(|old| touch(old.tuple()));
                touch(new);
            }
            ChangeOp::Delete { old } => touch(old.tuple()),
            ChangeOp::Truncate | ChangeOp::Schema => {}
        }
    }
});
