//! Why an expression, and with it a part of a body, has no value on a row.

use std::sync::Arc;

use cel::ExecutionError;

/// An expression of a payload that had no value; null stands in its place.
pub(crate) type RenderFaults = Vec<(Arc<str>, EvaluationFault)>;

/// Why an expression has no value on a row. Without the row's data: it stands in logs.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum EvaluationFault {
    /// A column that is not there, or whose value PostgreSQL did not send.
    Unknown,
    NoSuchKey,
    /// Null or another type where the operator or function takes none such.
    Type,
    Overflow,
    DivisionByZero,
    OutOfBounds,
    /// A filter that is neither true nor false.
    NotBoolean,
    /// A function refused its argument.
    Function,
    /// More steps or memory than an evaluation may take.
    TooMuch,
    /// A payload that makes more of the row than a body may have.
    Oversize,
}

impl EvaluationFault {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => {
                "names a column that the table does not have, or whose value PostgreSQL did not \
                 send: see `walhook check`"
            }
            Self::NoSuchKey => "asks for a key that is not there: guard it with has()",
            Self::Type => "meets null or a type that does not fit: guard it with `x != null &&`",
            Self::Overflow => "exceeds the range of its type",
            Self::DivisionByZero => "divides by zero",
            Self::OutOfBounds => "asks for an element that is not there",
            Self::NotBoolean => "is neither true nor false",
            Self::TooMuch => {
                "takes more steps or memory than one evaluation may: simplify it, or compute it in a \
                 view or a generated column"
            }
            Self::Oversize => {
                "makes more of a row than a body may have, 16 MiB and four times the row: the event \
                 would be a dead letter; name fewer columns, or each fewer times"
            }
            Self::Function => "calls a function with an argument that it refuses",
        }
    }
}

impl From<&ExecutionError> for EvaluationFault {
    fn from(error: &ExecutionError) -> Self {
        match error {
            ExecutionError::UndeclaredReference(_) => Self::Unknown,
            ExecutionError::NoSuchKey(_) => Self::NoSuchKey,
            ExecutionError::Overflow(..) => Self::Overflow,
            ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => {
                Self::DivisionByZero
            }
            ExecutionError::IndexOutOfBounds(_) => Self::OutOfBounds,
            ExecutionError::FunctionError { .. } => Self::Function,
            // The crate may add kinds; what is left today all comes from types that do not fit.
            _ => Self::Type,
        }
    }
}
