//! What the expressions of an endpoint's URL and headers come to on a change. How they stand in a request is
//! delivery's to know: here they become text.

use std::sync::Arc;

use crate::event::expression_fault::EvaluationFault;
use crate::event::expression_fault::RenderFaults;
use crate::event::scope::EvaluationScope;
use crate::event::template::CompiledTemplate;
use crate::event::writer::JsonWriter;
use crate::event::writer::NamedColumn;
use crate::expression::Expression;
use crate::expression::template::TemplateNode;
use crate::flow::body::RequestValue;
use crate::flow::relation::Relation;

/// More stands in no URL and in no header.
const VALUE_BYTES_MAX: usize = 8 * 1024;

/// Expressions against one relation.
#[derive(Debug, Default)]
pub(crate) struct RequestValues(Vec<(Arc<str>, CompiledTemplate)>);

impl RequestValues {
    pub(crate) fn compile(
        expressions: &[Expression],
        relation: &Relation,
        columns: impl Fn() -> Vec<NamedColumn>,
    ) -> Self {
        let compile = |expression: &Expression| {
            let node = TemplateNode::Value(expression.clone());
            let compiled = CompiledTemplate::json(&node, relation, columns());
            (Arc::from(expression.source()), compiled)
        };
        Self(expressions.iter().map(compile).collect())
    }

    /// The values, each with its expression's source. What fails is told among `faults` as well.
    pub(crate) fn of(
        &self,
        scope: &EvaluationScope<'_>,
        faults: &mut RenderFaults,
    ) -> Vec<(Arc<str>, RequestValue)> {
        let value = |(source, template): &(Arc<str>, CompiledTemplate)| {
            let mut own = RenderFaults::new();
            let mut writer = JsonWriter::default();
            let fits = template.write(&mut writer, scope, &mut own);
            let value = match own.first() {
                Some((_, fault)) => RequestValue::Failed(fault.as_str().into()),
                None if !fits => RequestValue::Failed(EvaluationFault::Oversize.as_str().into()),
                None => text(writer.finish().complete(scope.now).as_ref()),
            };
            faults.append(&mut own);
            (Arc::clone(source), value)
        };
        self.0.iter().map(value).collect()
    }
}

/// A JSON value as it stands in a text.
fn text(json: &[u8]) -> RequestValue {
    if json.len() > VALUE_BYTES_MAX {
        let kib = VALUE_BYTES_MAX >> 10;
        return RequestValue::Failed(format!("is longer than {kib} KiB").into());
    }
    match json {
        b"null" => RequestValue::Null,
        [b'"', ..] => match serde_json::from_slice::<Box<str>>(json) {
            Ok(text) => RequestValue::Text(text),
            // A lone surrogate has no text.
            Err(_) => RequestValue::Failed("is no text in UTF-8".into()),
        },
        json => RequestValue::Text(String::from_utf8_lossy(json).into()),
    }
}
