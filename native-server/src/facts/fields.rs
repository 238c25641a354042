//! Fields of a record, with complaints that name them.

use rectify_protocol::Neighbor;
use serde_json::{Map, Value};

pub(super) type Object = Map<String, Value>;

/// Prompts and their targets side by side; targets may be fewer.
pub(super) fn neighbors(prompts: Vec<String>, targets: Vec<String>) -> Vec<Neighbor> {
    let targets = targets.into_iter().map(Some).chain(std::iter::repeat(None));
    prompts.into_iter().zip(targets).map(|(prompt, target)| Neighbor { prompt, target }).collect()
}

pub(super) fn missing(record: &Object, field: &str) -> String {
    let found: Vec<&str> = record.keys().map(String::as_str).collect();
    format!("the field {field:?} is missing; found {}", found.join(", "))
}

pub(super) fn object<'a>(record: &'a Object, field: &str) -> Result<&'a Object, String> {
    let value = record.get(field).ok_or_else(|| missing(record, field))?;
    value.as_object().ok_or_else(|| format!("the field {field:?} is not an object"))
}

/// A field that must be there and be text.
pub(super) fn text(record: &Object, field: &str) -> Result<String, String> {
    let value = record.get(field).ok_or_else(|| missing(record, field))?;
    value.as_str().map(str::to_owned).ok_or_else(|| format!("the field {field:?} is {value}; it must be text"))
}

/// A field that may be absent, one text, or a list of texts. Blank ones are left out.
pub(super) fn texts(record: &Object, field: &str) -> Result<Vec<String>, String> {
    let mut found = Vec::new();
    if let Some(value) = record.get(field) {
        collect(value, &mut found).map_err(|bad| format!("the field {field:?} holds {bad}; it must hold text"))?;
    }
    Ok(found)
}

/// The first text of a field that is text or nested lists of aliases; blank ones are skipped.
pub(super) fn first_text(record: &Object, field: &str) -> Result<Option<String>, String> {
    Ok(texts(record, field)?.into_iter().next())
}

fn collect(value: &Value, found: &mut Vec<String>) -> Result<(), String> {
    match value {
        Value::Null => Ok(()),
        Value::String(text) => {
            if !text.trim().is_empty() {
                found.push(text.clone());
            }
            Ok(())
        }
        Value::Array(values) => values.iter().try_for_each(|value| collect(value, found)),
        other => Err(other.to_string()),
    }
}
