//! The functions that expressions can call beside CEL's own.

use std::sync::Arc;
use std::sync::LazyLock;

use cel::Env;
use cel::common::types::CelString;
use cel::common::value::CowVal;

use crate::expression::json_value;
use crate::expression::meter;

/// Every function that a call may name.
pub(super) const FUNCTIONS: [&str; 36] = [
    "bool",
    "charAt",
    "contains",
    "double",
    "duration",
    "dyn",
    "endsWith",
    "format",
    "getDate",
    "getDayOfMonth",
    "getDayOfWeek",
    "getDayOfYear",
    "getFullYear",
    "getHours",
    "getMilliseconds",
    "getMinutes",
    "getMonth",
    "getSeconds",
    "indexOf",
    "int",
    "join",
    "json",
    "lastIndexOf",
    "lowerAscii",
    "replace",
    "reverse",
    "size",
    "split",
    "startsWith",
    "string",
    "substring",
    "timestamp",
    "trim",
    "type",
    "uint",
    "upperAscii",
];

/// The functions that expressions may call.
pub(crate) static ENVIRONMENT: LazyLock<Arc<Env>> = LazyLock::new(|| {
    let mut env = Env::stdlib().with_optional_support(false);
    // Each name is declared once, here, so neither can clash.
    let strings = env.add_extension(cel::extensions::strings);
    let json = env.add_overload("json", "json_string", vec![cel::common::types::STRING_TYPE], json);
    let metered = meter::declare(&mut env);
    debug_assert!(
        strings.is_ok() && json.is_ok() && metered.is_ok(),
        "{strings:?} {json:?} {metered:?}"
    );
    Arc::new(env)
});

/// `json(text)`: the value that a JSON text stands for.
fn json<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, cel::ExecutionError> {
    let refused = |why: &str| cel::ExecutionError::function_error("json", why);
    let text = arguments.first().and_then(|text| text.downcast_ref::<CelString<'_>>());
    let text = text.ok_or_else(|| refused("no text"))?;
    meter::parses(text.inner())?;
    let read = json_value::read(text.inner().as_bytes()).ok_or_else(|| refused("not JSON"))?;
    let value: Box<dyn cel::common::value::Val> = read.try_into()?;
    Ok(CowVal::Owned(value))
}
