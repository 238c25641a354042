//! CounterFact, as ROME has it and as EasyEdit does, and the texts that go with it.

use std::collections::HashMap;

use rectify_protocol::{Fact, Failure};

use super::fields::{Object, first_text, neighbors, object, text, texts};

/// ROME's `attribute_snippets.json`: texts about things, by what is true of them.
#[derive(Debug)]
pub struct Snippets {
    /// By relation and object, as Wikidata numbers them.
    texts: HashMap<(String, String), Vec<String>>,
}

/// One entry of the file.
#[derive(serde::Deserialize)]
struct Attribute {
    relation_id: String,
    target_id: String,
    samples: Vec<Sample>,
}

#[derive(serde::Deserialize)]
struct Sample {
    text: String,
}

impl Snippets {
    /// Reads the file; `name` is used in messages.
    pub fn read(name: &str, text: &str) -> Result<Self, Failure> {
        let attributes: Vec<Attribute> = serde_json::from_str(text)
            .map_err(|error| Failure::bad_input(format!("{name} holds no attribute snippets: {error}")))?;
        let mut texts = HashMap::<_, Vec<String>>::new();
        for Attribute { relation_id, target_id, samples } in attributes {
            texts.entry((relation_id, target_id)).or_default().extend(samples.into_iter().map(|sample| sample.text));
        }
        Ok(Self { texts })
    }

    /// Every text.
    pub fn all(&self) -> impl Iterator<Item = &str> {
        self.texts.values().flatten().map(String::as_str)
    }

    /// The texts about others of whom a record's new object is true.
    fn about(&self, rewrite: &Object) -> Option<&[String]> {
        let relation = rewrite.get("relation_id")?.as_str()?;
        let target = rewrite.get("target_new")?.get("id")?.as_str()?;
        self.texts.get(&(relation.to_owned(), target.to_owned())).map(Vec::as_slice)
    }
}

pub(super) fn nested(record: &Object, snippets: Option<&Snippets>) -> Result<Fact, String> {
    let rewrite = object(record, "requested_rewrite")?;
    let within = |problem: String| format!("in \"requested_rewrite\": {problem}");
    let subject = text(rewrite, "subject").map_err(within)?;
    let template = text(rewrite, "prompt").map_err(within)?;
    let target =
        |field: &str| text(object(rewrite, field)?, "str").map_err(|problem| format!("in {field:?}: {problem}"));
    let target_true = target("target_true").map_err(within)?;
    if template.matches("{}").count() != 1 {
        return Err(format!("\"prompt\" is {template:?}; it must have one {{}}, where the subject goes"));
    }
    let prompts = texts(record, "neighborhood_prompts")?;
    let targets = vec![target_true.clone(); prompts.len()];
    Ok(Fact {
        prompt: template.replace("{}", &subject),
        subject,
        target_new: target("target_new").map_err(within)?,
        target_true: Some(target_true),
        paraphrases: texts(record, "paraphrase_prompts")?,
        neighbors: neighbors(prompts, targets),
        generation_prompts: texts(record, "generation_prompts")?,
        references: snippets.and_then(|snippets| snippets.about(rewrite)).unwrap_or_default().to_vec(),
        ..Fact::default()
    })
}

pub(super) fn flat(record: &Object) -> Result<Fact, String> {
    Ok(Fact {
        subject: text(record, "subject")?,
        prompt: text(record, "prompt")?,
        target_new: text(record, "target_new")?,
        target_true: first_text(record, "ground_truth")?,
        paraphrases: texts(record, "rephrase_prompt")?,
        neighbors: neighbors(texts(record, "locality_prompt")?, texts(record, "locality_ground_truth")?),
        ..Fact::default()
    })
}
