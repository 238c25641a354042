//! MEND's zsRE.

use rectify_protocol::{Consequence, Fact};
use serde_json::Value;

use super::fields::{Object, first_text, neighbors, object, text, texts};

pub(super) fn zsre(record: &Object) -> Result<Fact, String> {
    let answers = first_text(record, "answers")?;
    Ok(Fact {
        subject: text(record, "subject")?,
        prompt: text(record, "src")?,
        target_new: text(record, "alt")?,
        target_true: answers.or(first_text(record, "pred")?),
        paraphrases: texts(record, "rephrase")?,
        neighbors: neighbors(texts(record, "loc")?, texts(record, "loc_ans")?),
        consequences: match record.get("portability") {
            None | Some(Value::Null) => Vec::new(),
            Some(_) => {
                let within = |problem: String| format!("in \"portability\": {problem}");
                let record = object(record, "portability")?;
                let prompt = text(record, "New Question").map_err(within)?;
                vec![Consequence { prompt, target: text(record, "New Answer").map_err(within)? }]
            }
        },
        ..Fact::default()
    })
}
