//! Templates as they stand in TOML: a table, a list or a text with `{{ expressions }}` in its strings.

use crate::config::toml_file::toml_field::FieldReader;
use crate::expression::template::DEPTH_MAX;
use crate::expression::template::TemplateMember;
use crate::expression::template::TemplateNode;
use crate::expression::template::member;
use crate::expression::template::of_string;

/// Reads a template from TOML. Problems are noted where they stand.
pub(super) fn of_field(field: &FieldReader<'_>) -> Option<TemplateNode> {
    of_field_at(field, 0)
}

fn of_field_at(field: &FieldReader<'_>, depth: usize) -> Option<TemplateNode> {
    if depth > DEPTH_MAX {
        return field.refuse(format!("is nested deeper than {DEPTH_MAX} levels: flatten it"));
    }
    if field.is_table() {
        let entries = field.section()?.entries_as_written();
        // Not `?` within: every problem is to be noted.
        let members: Vec<Option<TemplateMember>> = entries
            .iter()
            .map(|(name, field)| {
                let value = of_field_at(field, depth + 1)?;
                member(name, value).map_or_else(|message| field.refuse(message), Some)
            })
            .collect();
        return Some(TemplateNode::Object(members.into_iter().collect::<Option<_>>()?));
    }
    if field.is_list() {
        let items: Vec<Option<TemplateNode>> =
            field.list()?.iter().map(|item| of_field_at(item, depth + 1)).collect();
        return Some(TemplateNode::List(items.into_iter().collect::<Option<_>>()?));
    }
    if let Some(literal) = field.literal() {
        return literal.map_or_else(
            |message| field.refuse(message),
            |json| Some(TemplateNode::Literal(json)),
        );
    }
    of_string(&field.string()?).map_or_else(|message| field.refuse(message), Some)
}

/// A JSON document without places to fill in.
pub(super) fn fixed_json(field: &FieldReader<'_>) -> Option<String> {
    let root = of_field(field)?;
    let text = root.fixed();
    text.or_else(|| field.refuse("has {{ expressions }}, and there is no row: write it out"))
}
