//! What an evaluation may take: steps, and bytes of values that it makes.
//!
//! ```text
//! syntax tree ─▶ [metered] ─ the same, with what grows going through the functions of this file ─▶ evaluation
//! ```
//!
//! A few calls of `replace` or `join` make a text of any length from nothing, and loops within loops run
//! for ever; the process that ends for want of memory is everybody's. So what can make more than it is
//! given is charged before it makes it, and everything else by what it has made. The engine has no
//! place for a state of ours, and evaluates on one thread from start to end: the meter belongs to the
//! thread.

use std::cell::Cell;

use cel::Context;
use cel::Env;
use cel::ExecutionError;
use cel::IdedExpr;
use cel::Value;
use cel::common::types::CelBytes;
use cel::common::types::CelInt;
use cel::common::types::CelList;
use cel::common::types::CelMap;
use cel::common::types::CelString;
use cel::common::types::DYN_TYPE;
use cel::common::types::INT_TYPE;
use cel::common::types::LIST_TYPE;
use cel::common::types::STRING_TYPE;
use cel::common::value::CowVal;
use cel::common::value::Val;
use cel::objects::ResolveResult;

pub(super) use crate::expression::meter::rewrite::metered;

/// About 20 ms of work, which delays the events that come after: a hundred thousand operations.
pub(crate) const STEPS_MAX: u64 = 100_000;
/// Values that an evaluation makes, beside what the row itself holds.
pub(crate) const BYTES_MAX: u64 = 16 << 20;

/// A large row may be gone through a few times.
const ROW_BYTES_PER_STEP: u64 = 2;
/// Text that is gone through, and JSON that is read, in one step.
const TEXT_BYTES_PER_STEP: u64 = 1024;
const JSON_BYTES_PER_STEP: u64 = 32;
/// What JSON takes as a value, at least, for a byte of its text.
const JSON_GROWTH: u64 = 4;
/// What a value takes beside its text.
const VALUE_BYTES: u64 = 48;

thread_local! {
    static METER: Cell<EvaluationMeter> = const { Cell::new(EvaluationMeter::IDLE) };
}

#[derive(Clone, Copy, Debug)]
struct EvaluationMeter {
    steps: u64,
    bytes: u64,
    is_over: bool,
    is_running: bool,
}

impl EvaluationMeter {
    const IDLE: Self = Self { steps: u64::MAX, bytes: u64::MAX, is_over: false, is_running: false };
}

/// An evaluation has asked for more than it may take.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct MeterExceeded;

/// Runs an evaluation on a row of so many bytes, within bounds. One that is run within another has steps
/// of its own, and shares the bytes.
///
/// # Errors
/// It asked for more, whatever came of that.
pub(crate) fn within<T>(
    row_bytes: usize,
    evaluate: impl FnOnce() -> T,
) -> Result<T, MeterExceeded> {
    let before = METER.get();
    let row = row_bytes as u64;
    let bytes = if before.is_running { before.bytes } else { BYTES_MAX.saturating_add(row) };
    let steps = STEPS_MAX.saturating_add(row / ROW_BYTES_PER_STEP);
    METER.set(EvaluationMeter { steps, bytes, is_over: false, is_running: true });
    let value = evaluate();
    let after = METER.get();
    METER.set(EvaluationMeter { bytes: after.bytes, ..before });
    if !before.is_running {
        METER.set(EvaluationMeter::IDLE);
    }
    if after.is_over { Err(MeterExceeded) } else { Ok(value) }
}

/// The value of a tree that [`metered`] has made.
pub(super) fn value(tree: &IdedExpr, context: &Context<'_, '_>) -> ResolveResult {
    let value = Value::resolve_val(tree, context)?;
    let size = ValueSize::of(value.as_ref());
    charge(size.steps(), size.bytes)?;
    value.as_ref().try_into()
}

/// As what a text of the row is looked at.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum TextReading {
    Plain,
    /// Maps and lists are made of it.
    Json,
}

/// A text of the row is looked at; `false` if that is too much.
pub(crate) fn reads(bytes: usize, reading: TextReading) -> bool {
    let bytes = bytes as u64;
    if reading == TextReading::Plain {
        return charge(bytes / TEXT_BYTES_PER_STEP, 0).is_ok();
    }
    // It is gone again when the operation is done, so it counts for its size, but not in the sum.
    let left = METER.get().bytes;
    let fits = bytes.saturating_mul(JSON_GROWTH) <= left;
    charge(bytes / JSON_BYTES_PER_STEP, if fits { 0 } else { u64::MAX }).is_ok()
}

fn charge(steps: u64, bytes: u64) -> Result<(), ExecutionError> {
    let mut meter = METER.get();
    let left = (meter.steps.checked_sub(steps), meter.bytes.checked_sub(bytes));
    match left {
        (Some(steps), Some(bytes)) if !meter.is_over => (meter.steps, meter.bytes) = (steps, bytes),
        _ => meter.is_over = true,
    }
    METER.set(meter);
    match meter.is_over {
        false => Ok(()),
        true => Err(ExecutionError::function_error("limit", "the evaluation takes too much")),
    }
}

/// What a value takes: bytes, and the values in it.
#[derive(Clone, Copy, Debug, Default)]
struct ValueSize {
    bytes: u64,
    values: u64,
}

impl ValueSize {
    fn of(value: &(dyn Val + '_)) -> Self {
        let mut size = Self { bytes: VALUE_BYTES, values: 1 };
        if let Some(text) = value.downcast_ref::<CelString<'_>>() {
            size.bytes += text.inner().len() as u64;
        } else if let Some(bytes) = value.downcast_ref::<CelBytes<'_>>() {
            size.bytes += bytes.inner().len() as u64;
        } else if let Some(list) = value.downcast_ref::<CelList<'_>>() {
            list.inner().iter().for_each(|item| size.add(&**item));
        } else if let Some(map) = value.downcast_ref::<CelMap<'_>>() {
            for (key, value) in map.inner() {
                size.add(key.inner());
                size.add(&**value);
            }
        }
        size
    }

    fn add(&mut self, value: &(dyn Val + '_)) {
        let part = Self::of(value);
        self.bytes += part.bytes;
        self.values += part.values;
    }

    fn steps(self) -> u64 {
        self.values + self.bytes / TEXT_BYTES_PER_STEP
    }
}

/// Declares what [`metered`] calls. Nobody can write these names.
pub(super) fn declare(env: &mut Env) -> Result<(), cel::DeclarationError> {
    let text = || STRING_TYPE;
    env.add_overload("@add", "@add", vec![DYN_TYPE, DYN_TYPE], add)?;
    env.add_overload("@touched", "@touched", vec![DYN_TYPE], touched)?;
    env.add_overload("@made", "@made", vec![DYN_TYPE], made)?;
    env.add_overload("@kept", "@kept", vec![DYN_TYPE], kept)?;
    env.add_overload("@range", "@range", vec![DYN_TYPE, INT_TYPE], range)?;
    env.add_overload("@replace", "@replace", vec![text(), text(), text()], replace)?;
    env.add_overload("@replace", "@replace_n", vec![text(), text(), text(), INT_TYPE], replace)?;
    env.add_overload("@join", "@join", vec![LIST_TYPE], join)?;
    env.add_overload("@join", "@join_by", vec![LIST_TYPE, text()], join)?;
    env.add_overload("@split", "@split", vec![text(), text()], split)?;
    env.add_overload("@split", "@split_n", vec![text(), text(), INT_TYPE], split)?;
    env.add_overload("@indexOf", "@index", vec![text(), text()], index_of)?;
    env.add_overload("@indexOf", "@index_from", vec![text(), text(), INT_TYPE], index_of)?;
    env.add_overload("@lastIndexOf", "@last", vec![text(), text()], last_index_of)?;
    env.add_overload("@lastIndexOf", "@last_to", vec![text(), text(), INT_TYPE], last_index_of)
}

type Arguments<'b, 'v> = Vec<CowVal<'b, 'v>>;
type Evaluated<'b, 'v> = Result<CowVal<'b, 'v>, ExecutionError>;

/// `a + b`, which copies both.
fn add<'b, 'v>(arguments: Arguments<'b, 'v>) -> Evaluated<'b, 'v> {
    let [one, other] = arguments.as_slice() else { return Err(wrong("two values", "others")) };
    let size = [one, other].map(|value| ValueSize::of(value.as_ref()));
    charge(size.iter().map(|size| size.steps()).sum(), size.iter().map(|size| size.bytes).sum())?;
    let adder = one.as_adder();
    let adder = adder.ok_or_else(|| wrong("a value with `+`", one.get_type().name()))?;
    // The crate's error holds copies of both values.
    let sum = adder.add(other.as_ref()).map_err(|error| match error {
        ExecutionError::Overflow(..) => error,
        _ => wrong(one.get_type().name(), other.get_type().name()),
    })?;
    Ok(CowVal::Owned(sum.into_owned()))
}

/// A variable of a macro, used once more.
fn touched<'b, 'v>(arguments: Arguments<'b, 'v>) -> Evaluated<'b, 'v> {
    let value = only(arguments)?;
    charge(ValueSize::of(value.as_ref()).steps(), 0)?;
    Ok(value)
}

/// What a function made that makes no more than it is given, or little.
fn made<'b, 'v>(arguments: Arguments<'b, 'v>) -> Evaluated<'b, 'v> {
    let value = only(arguments)?;
    let size = ValueSize::of(value.as_ref());
    charge(size.steps(), if value.is_owned() { size.bytes } else { 0 })?;
    Ok(value)
}

/// What goes into a list or map, which takes a copy.
fn kept<'b, 'v>(arguments: Arguments<'b, 'v>) -> Evaluated<'b, 'v> {
    let value = only(arguments)?;
    let size = ValueSize::of(value.as_ref());
    charge(size.steps(), size.bytes)?;
    Ok(value)
}

/// What a macro goes through, and the operations for each item.
fn range<'b, 'v>(mut arguments: Arguments<'b, 'v>) -> Evaluated<'b, 'v> {
    let operations = arguments.pop();
    let operations = operations.as_ref().and_then(|value| value.downcast_ref::<CelInt>());
    let operations = operations.map_or(1, |number| number.inner().unsigned_abs());
    let range = only(arguments)?;
    let items = match (range.downcast_ref::<CelList<'_>>(), range.downcast_ref::<CelMap<'_>>()) {
        (Some(list), _) => list.inner().len(),
        (_, Some(map)) => map.inner().len(),
        (None, None) => 0,
    };
    let turns = (items as u64).saturating_mul(operations);
    charge(turns.saturating_add(ValueSize::of(range.as_ref()).steps()), 0)?;
    Ok(range)
}

fn replace<'b, 'v>(arguments: Arguments<'b, 'v>) -> Evaluated<'b, 'v> {
    let [this, from, to] = [text(&arguments, 0)?, text(&arguments, 1)?, text(&arguments, 2)?];
    let most = number(&arguments, 3).and_then(|most| usize::try_from(most).ok());
    charge(ValueSize::of(&CelString::from(this)).steps(), 0)?;
    let found = this.matches(from).take(most.unwrap_or(usize::MAX)).count();
    let grown = this.len() - found * from.len();
    let grown = (found as u64).saturating_mul(to.len() as u64).saturating_add(grown as u64);
    charge(found as u64 + grown / TEXT_BYTES_PER_STEP, grown)?;
    Ok(string(this.replacen(from, to, found)))
}

fn join<'b, 'v>(arguments: Arguments<'b, 'v>) -> Evaluated<'b, 'v> {
    let list = arguments.first().and_then(|list| list.downcast_ref::<CelList<'_>>());
    let items = list.ok_or_else(|| wrong("list", "another"))?.inner();
    let separator = if arguments.len() > 1 { text(&arguments, 1)? } else { "" };
    let parts: Option<Vec<&str>> =
        items.iter().map(|item| Some(item.downcast_ref::<CelString<'_>>()?.inner())).collect();
    let parts = parts.ok_or_else(|| wrong("string", "another"))?;
    let between = (separator.len() as u64).saturating_mul(parts.len() as u64);
    let whole = parts.iter().map(|part| part.len() as u64).sum::<u64>().saturating_add(between);
    charge(parts.len() as u64 + whole / TEXT_BYTES_PER_STEP, whole)?;
    Ok(string(parts.join(separator)))
}

/// As the strings extension does: at most so many parts, the last with the rest; without a separator
/// one for each character.
fn split<'b, 'v>(arguments: Arguments<'b, 'v>) -> Evaluated<'b, 'v> {
    let (this, separator) = (text(&arguments, 0)?, text(&arguments, 1)?);
    let most = number(&arguments, 2).and_then(|most| usize::try_from(most).ok());
    charge(ValueSize::of(&CelString::from(this)).steps(), 0)?;
    let all = match separator.is_empty() {
        true => this.chars().count(),
        false => this.matches(separator).count() + 1,
    };
    let parts = all.min(most.unwrap_or(all)) as u64;
    charge(parts, parts.saturating_mul(VALUE_BYTES).saturating_add(this.len() as u64))?;
    let parts: Vec<&str> = match (most, separator.is_empty()) {
        (Some(0), _) => Vec::new(),
        (Some(most), false) => this.splitn(most, separator).collect(),
        (None, false) => this.split(separator).collect(),
        (most, true) => characters(this, most.unwrap_or(usize::MAX)),
    };
    let value = |part: &str| Box::new(CelString::from(part.to_owned())) as Box<dyn Val>;
    Ok(CowVal::owned(CelList::from(parts.into_iter().map(value).collect::<Vec<_>>())))
}

fn characters(text: &str, most: usize) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if parts.len() + 1 >= most {
            break;
        }
        let Some((head, tail)) = rest.split_at_checked(first.len_utf8()) else { break };
        parts.push(head);
        rest = tail;
    }
    if !rest.is_empty() {
        parts.push(rest);
    }
    parts
}

/// The crate's own compares at each place: a search for a long text in a long one would take hours.
fn index_of<'b, 'v>(arguments: Arguments<'b, 'v>) -> Evaluated<'b, 'v> {
    let (this, searched) = (text(&arguments, 0)?, text(&arguments, 1)?);
    charge(ValueSize::of(&CelString::from(this)).steps(), 0)?;
    let from = place(this, &arguments, searched.is_empty())?.unwrap_or(0);
    let rest = this.get(from..).unwrap_or_default();
    Ok(index(this, rest.find(searched).map(|found| from + found)))
}

fn last_index_of<'b, 'v>(arguments: Arguments<'b, 'v>) -> Evaluated<'b, 'v> {
    let (this, searched) = (text(&arguments, 0)?, text(&arguments, 1)?);
    charge(ValueSize::of(&CelString::from(this)).steps(), 0)?;
    let last = place(this, &arguments, searched.is_empty())?.unwrap_or(this.len());
    // The last one that begins no later.
    let end = last.saturating_add(searched.len()).min(this.len());
    let end = (0..=end).rev().find(|end| this.is_char_boundary(*end)).unwrap_or_default();
    let before = this.get(..end).unwrap_or_default();
    Ok(index(this, before.rfind(searched)))
}

/// The byte at which the character of the third argument begins.
fn place(
    this: &str,
    arguments: &[CowVal<'_, '_>],
    searches_nothing: bool,
) -> Result<Option<usize>, ExecutionError> {
    let Some(index) = number(arguments, 2) else { return Ok(None) };
    let refused = || ExecutionError::function_error("indexOf", "index out of range");
    let index = usize::try_from(index).map_err(|_| refused())?;
    match this.char_indices().nth(index) {
        Some((place, _)) => Ok(Some(place)),
        None if searches_nothing => Ok(Some(this.len())),
        None => Err(refused()),
    }
}

/// A place in bytes as one in characters; -1 for none.
fn index<'b, 'v>(this: &str, found: Option<usize>) -> CowVal<'b, 'v> {
    let characters = found.and_then(|found| this.get(..found)).map(|before| before.chars().count());
    let index = characters.and_then(|count| i64::try_from(count).ok()).unwrap_or(-1);
    CowVal::owned(CelInt::from(index))
}

fn only<'b, 'v>(arguments: Arguments<'b, 'v>) -> Evaluated<'b, 'v> {
    arguments.into_iter().next().ok_or_else(|| wrong("a value", "none"))
}

fn text<'a>(arguments: &'a [CowVal<'_, '_>], at: usize) -> Result<&'a str, ExecutionError> {
    let text = arguments.get(at).and_then(|text| text.downcast_ref::<CelString<'_>>());
    text.map(CelString::inner).ok_or_else(|| wrong("string", "another"))
}

fn number(arguments: &[CowVal<'_, '_>], at: usize) -> Option<i64> {
    arguments.get(at)?.downcast_ref::<CelInt>().map(|number| *number.inner())
}

fn string<'b, 'v>(text: String) -> CowVal<'b, 'v> {
    CowVal::owned(CelString::from(text))
}

fn wrong(want: &str, got: &str) -> ExecutionError {
    ExecutionError::UnexpectedType { got: got.to_owned(), want: want.to_owned() }
}

/// A text that is to be read as JSON by an expression.
///
/// # Errors
/// It is too much.
pub(super) fn parses(text: &str) -> Result<(), ExecutionError> {
    let bytes = text.len() as u64;
    charge(bytes / JSON_BYTES_PER_STEP, bytes.saturating_mul(JSON_GROWTH))
}

mod rewrite;
#[cfg(test)]
mod tests;
