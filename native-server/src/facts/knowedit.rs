//! KnowEdit and its relatives.

use rectify_protocol::{Consequence, Fact, Neighbor};
use serde_json::Value;

use super::fields::{Object, first_text, missing, texts};

pub(super) fn read(record: &Object) -> Result<Fact, String> {
    let either = |field: &'static str, other: &'static str| {
        let field = if !record.contains_key(field) && record.contains_key(other) { other } else { field };
        match first_text(record, field)? {
            None if !record.contains_key(field) => Err(missing(record, field)),
            text => Ok(text.unwrap_or_default()),
        }
    };
    let neighbors = questions(record, "locality")?;
    let neighbors = neighbors.into_iter().map(|(prompt, target)| Neighbor { prompt, target });
    // Nothing can be said of an answer that is not given.
    let consequences = questions(record, "portability")?.into_iter();
    let consequences = consequences.filter_map(|(prompt, target)| Some(Consequence { prompt, target: target? }));
    Ok(Fact {
        subject: either("subject", "concept")?,
        prompt: either("prompt", "text")?,
        target_new: either("target_new", "labels")?,
        target_true: first_text(record, "ground_truth")?.or(first_text(record, "target_old")?),
        paraphrases: texts(record, "rephrase")?,
        neighbors: neighbors.collect(),
        consequences: consequences.collect(),
        ..Fact::default()
    })
}

/// Questions by kinds, `{"Relation_Specificity": [{"prompt": …, "ground_truth": …}, …], …}`, or in one list; with the first
/// answer of each, which may be called `answer` as well.
fn questions(record: &Object, field: &str) -> Result<Vec<(String, Option<String>)>, String> {
    let lists = match record.get(field) {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(list @ Value::Array(_)) => vec![(None, list)],
        Some(Value::Object(kinds)) => kinds.iter().map(|(kind, list)| (Some(kind), list)).collect(),
        Some(_) => return Err(format!("the field {field:?} is neither an object nor a list")),
    };
    let mut questions = Vec::new();
    for (kind, list) in lists {
        let within = |problem: String| match kind {
            Some(kind) => format!("in {field:?}, {kind:?}: {problem}"),
            None => format!("in {field:?}: {problem}"),
        };
        for question in list.as_array().ok_or_else(|| within("it is not a list".into()))? {
            let question = question.as_object().ok_or_else(|| within("a question is not an object".into()))?;
            let answer = ["ground_truth", "answer"].into_iter().find(|name| question.contains_key(*name));
            let answer = answer.ok_or_else(|| within(missing(question, "ground_truth")))?;
            let target = first_text(question, answer).map_err(within)?;
            if let Some(prompt) = first_text(question, "prompt").map_err(within)? {
                questions.push((prompt, target));
            }
        }
    }
    Ok(questions)
}
