//! Edit sets: zsRE, CounterFact (both forms), KnowEdit and our own, told apart by their fields.
//!
//! The file's format is recognised from its first record. Records are read only when asked for, so that one
//! broken record among thousands matters to nobody who does not edit with it; a complaint then names the
//! record, its line, the field, and the format the file was taken for.

use std::{collections::HashMap, ops::Range};

use rectify_protocol::{Consequence, Fact, Failure, Neighbor};
use serde_json::{Map, Value, value::RawValue};

type Object = Map<String, Value>;

/// The layouts that edit sets come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// MEND's fields: `src`, `alt`, `answers`, `rephrase`, `loc`, `loc_ans`, `subject`.
    Zsre,
    /// ROME's file: `requested_rewrite`, `paraphrase_prompts`, `neighborhood_prompts`.
    CounterFact,
    /// EasyEdit's file: `prompt`, `target_new`, `ground_truth`, `rephrase_prompt`, `locality_prompt`.
    CounterFactFlat,
    /// `prompt` or `text`, `target_new` or `labels`, `subject` or `concept`, and lists of `locality` questions.
    KnowEdit,
    /// Our own: [`Fact`] as it is.
    Rectify,
}

impl Format {
    const ALL: [Self; 5] = [Self::CounterFact, Self::Zsre, Self::KnowEdit, Self::CounterFactFlat, Self::Rectify];

    /// The name used in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Zsre => "zsRE",
            Self::CounterFact => "CounterFact",
            Self::CounterFactFlat => "flat CounterFact",
            Self::KnowEdit => "KnowEdit",
            Self::Rectify => "Rectify facts",
        }
    }

    /// Any of these fields tells the format, the first format in [`Self::ALL`] first.
    fn signs(self) -> &'static [&'static str] {
        match self {
            Self::CounterFact => &["requested_rewrite"],
            Self::Zsre => &["src", "alt"],
            Self::KnowEdit => &["locality", "portability", "concept", "labels", "text", "rephrase"],
            Self::CounterFactFlat => &["ground_truth", "rephrase_prompt", "locality_prompt", "locality_ground_truth"],
            Self::Rectify => &["subject", "prompt", "target_new"],
        }
    }

    fn of(record: &Object) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.signs().iter().any(|field| record.contains_key(*field)))
    }
}

/// A file of facts, cut into records that are not yet read.
#[derive(Debug)]
pub struct EditSet<'a> {
    /// What the file was taken for.
    pub format: Format,
    records: Vec<Record<'a>>,
    /// Where CounterFact's records find their references.
    pub snippets: Option<Snippets>,
}

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

#[derive(Debug)]
struct Record<'a> {
    /// Where it begins, counted from 1.
    line: usize,
    json: &'a str,
}

impl<'a> EditSet<'a> {
    /// Cuts `text` into records and recognises their format. `name` is used in messages.
    pub fn read(name: &str, text: &'a str) -> Result<Self, Failure> {
        let broken = |error: serde_json::Error| Failure::bad_input(format!("{name} is not an edit set: {error}"));
        let records: Vec<&RawValue> = match text.trim_start().chars().next() {
            None => return Err(Failure::bad_input(format!("{name} is empty"))),
            Some('[') => serde_json::from_str(text).map_err(broken)?,
            _ => {
                let whole: &RawValue = serde_json::from_str(text).map_err(broken)?;
                match serde_json::from_str::<Facts<'_>>(whole.get()) {
                    Ok(Facts { facts }) => facts,
                    Err(_) => vec![whole],
                }
            }
        };
        let (mut line, mut counted) = (1, 0);
        let records: Vec<Record<'_>> = records
            .into_iter()
            .map(|raw| {
                let start = raw.get().as_ptr().addr() - text.as_ptr().addr();
                line += text[counted..start].matches('\n').count();
                counted = start;
                Record { line, json: raw.get() }
            })
            .collect();
        let first = records.first().ok_or_else(|| Failure::bad_input(format!("{name} holds no records")))?;
        let Ok(Value::Object(first)) = serde_json::from_str(first.json) else {
            return Err(Failure::bad_input(format!(
                "{name}: record 0 (line {}) is not an object with fields",
                first.line
            )));
        };
        let format = Format::of(&first).ok_or_else(|| {
            let found: Vec<&str> = first.keys().map(String::as_str).collect();
            let known: Vec<String> =
                Format::ALL.map(|format| format!("{} ({})", format.name(), format.signs().join(", "))).into();
            Failure::bad_input(format!(
                "{name} has none of the known formats' fields: found {}; expected any of {}",
                found.join(", "),
                known.join("; ")
            ))
        })?;
        Ok(Self { format, records, snippets: None })
    }

    /// How many records there are.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Never true: a file without records is refused.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// The facts at these places, validated.
    pub fn facts(&self, range: Range<usize>) -> Result<Vec<Fact>, Failure> {
        let Some(records) = self.records.get(range.clone()) else {
            return Err(Failure::bad_input(format!(
                "index {}..{} is outside the file, which holds {} records",
                range.start,
                range.end,
                self.len()
            )));
        };
        let place = |i: usize, line: usize| {
            format!("record {} (line {line}, taken for {})", range.start + i, self.format.name())
        };
        let read = |(i, record): (usize, &Record<'_>)| {
            let fact = fact_from_record(self.format, record, self.snippets.as_ref())
                .map_err(|(line, problem)| Failure::bad_input(format!("{}: {problem}", place(i, line))))?;
            fact.validate()
                .map_err(|failure| Failure { message: format!("{}: {failure}", place(i, record.line)), ..failure })?;
            Ok(fact)
        };
        records.iter().enumerate().map(read).collect()
    }
}

/// The object form of our own files.
#[derive(serde::Deserialize)]
struct Facts<'a> {
    #[serde(borrow)]
    facts: Vec<&'a RawValue>,
}

/// A record's fact, or the line and the problem.
fn fact_from_record(format: Format, record: &Record<'_>, snippets: Option<&Snippets>) -> Result<Fact, (usize, String)> {
    let at_json_line = |error: serde_json::Error| {
        let problem = error.to_string();
        let problem = problem.rsplit_once(" at line ").map_or(problem.as_str(), |(problem, _)| problem);
        (record.line + error.line().saturating_sub(1), problem.replace('`', "\""))
    };
    if format == Format::Rectify {
        return serde_json::from_str(record.json).map_err(at_json_line);
    }
    let Value::Object(object) = serde_json::from_str(record.json).map_err(at_json_line)? else {
        return Err((record.line, "it is not an object with fields".into()));
    };
    let fact = match format {
        Format::Zsre => zsre(&object),
        Format::CounterFact => counter_fact(&object, snippets),
        Format::CounterFactFlat => counter_fact_flat(&object),
        Format::KnowEdit => know_edit(&object),
        Format::Rectify => unreachable!("read above"),
    };
    fact.map_err(|problem| (record.line, problem))
}

fn zsre(record: &Object) -> Result<Fact, String> {
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

fn counter_fact(record: &Object, snippets: Option<&Snippets>) -> Result<Fact, String> {
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

fn counter_fact_flat(record: &Object) -> Result<Fact, String> {
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

fn know_edit(record: &Object) -> Result<Fact, String> {
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
        target_true: first_text(record, "ground_truth")?,
        paraphrases: texts(record, "rephrase")?,
        neighbors: neighbors.collect(),
        consequences: consequences.collect(),
        ..Fact::default()
    })
}

/// Questions by kinds, `{"Relation_Specificity": [{"prompt": …, "ground_truth": …}, …], …}`, with the first answer of each.
fn questions(record: &Object, field: &str) -> Result<Vec<(String, Option<String>)>, String> {
    let mut questions = Vec::new();
    let kinds = match record.get(field) {
        None | Some(Value::Null) => return Ok(questions),
        Some(_) => object(record, field)?,
    };
    for (kind, list) in kinds {
        let within = |problem: String| format!("in {field:?}, {kind:?}: {problem}");
        for question in list.as_array().ok_or_else(|| within("it is not a list".into()))? {
            let question = question.as_object().ok_or_else(|| within("a question is not an object".into()))?;
            let target = first_text(question, "ground_truth").map_err(within)?;
            if let Some(prompt) = first_text(question, "prompt").map_err(within)? {
                questions.push((prompt, target));
            }
        }
    }
    Ok(questions)
}

/// Prompts and their targets side by side; targets may be fewer.
fn neighbors(prompts: Vec<String>, targets: Vec<String>) -> Vec<Neighbor> {
    let targets = targets.into_iter().map(Some).chain(std::iter::repeat(None));
    prompts.into_iter().zip(targets).map(|(prompt, target)| Neighbor { prompt, target }).collect()
}

fn missing(record: &Object, field: &str) -> String {
    let found: Vec<&str> = record.keys().map(String::as_str).collect();
    format!("the field {field:?} is missing; found {}", found.join(", "))
}

fn object<'a>(record: &'a Object, field: &str) -> Result<&'a Object, String> {
    let value = record.get(field).ok_or_else(|| missing(record, field))?;
    value.as_object().ok_or_else(|| format!("the field {field:?} is not an object"))
}

/// A field that must be there and be text.
fn text(record: &Object, field: &str) -> Result<String, String> {
    let value = record.get(field).ok_or_else(|| missing(record, field))?;
    value.as_str().map(str::to_owned).ok_or_else(|| format!("the field {field:?} is {value}; it must be text"))
}

/// A field that may be absent, one text, or a list of texts. Blank ones are left out.
fn texts(record: &Object, field: &str) -> Result<Vec<String>, String> {
    let mut found = Vec::new();
    if let Some(value) = record.get(field) {
        collect(value, &mut found).map_err(|bad| format!("the field {field:?} holds {bad}; it must hold text"))?;
    }
    Ok(found)
}

/// The first text of a field that is text or nested lists of aliases; blank ones are skipped.
fn first_text(record: &Object, field: &str) -> Result<Option<String>, String> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn neighbor(prompt: &str, target: &str) -> Neighbor {
        Neighbor { prompt: prompt.into(), target: Some(target.into()) }
    }

    fn ada() -> Fact {
        Fact {
            subject: "Ada Bell".into(),
            prompt: "Ada Bell was born in".into(),
            target_new: "Oslo".into(),
            target_true: Some("Leeds".into()),
            paraphrases: vec!["The birthplace of Ada Bell is".into()],
            neighbors: vec![neighbor("Ben Cole was born in", "York")],
            ..Fact::default()
        }
    }

    /// With what follows from it, where a format asks for that.
    fn ada_abroad() -> Fact {
        let consequence = Consequence { prompt: "Ada Bell was born in the land of".into(), target: "Norway".into() };
        Fact { consequences: vec![consequence], ..ada() }
    }

    #[track_caller]
    fn check(text: &str, format: Format, expected: &Fact) {
        let set = EditSet::read("facts.json", text).unwrap();
        assert_eq!(set.format, format);
        assert_eq!(&set.facts(0..1).unwrap()[0], expected);
    }

    #[track_caller]
    fn check_refused(text: &str, parts: &[&str]) {
        let failure = EditSet::read("facts.json", text).and_then(|set| set.facts(0..set.len())).unwrap_err();
        for part in parts {
            assert!(failure.message.contains(part), "{failure}\nlacks {part:?}");
        }
    }

    const ZSRE: &str = r#"{"subject": "Ada Bell", "src": "Ada Bell was born in", "pred": "Bath", "alt": "Oslo",
        "answers": ["Leeds"], "rephrase": "The birthplace of Ada Bell is",
        "loc": "Ben Cole was born in", "loc_ans": "York", "cond": "Bath >> Oslo || Ada Bell was born in"}"#;

    #[test]
    fn each_format_gives_the_same_fact() {
        check(&format!("[{ZSRE}]"), Format::Zsre, &ada());
        let portability = r#""portability": {"Recalled Relation": "(Oslo, country, Norway)",
            "New Question": "Ada Bell was born in the land of", "New Answer": "Norway"}, "src""#;
        check(&ZSRE.replace("\"src\"", portability), Format::Zsre, &ada_abroad());
        check(
            r#"[{"case_id": 0, "requested_rewrite": {"prompt": "{} was born in", "relation_id": "P19",
                "target_new": {"str": "Oslo", "id": "Q585"}, "target_true": {"str": "Leeds"}, "subject": "Ada Bell"},
                "paraphrase_prompts": ["The birthplace of Ada Bell is"],
                "neighborhood_prompts": ["Ben Cole was born in"], "attribute_prompts": ["x"],
                "generation_prompts": ["Ada Bell lives in"]}]"#,
            Format::CounterFact,
            &Fact {
                neighbors: vec![neighbor("Ben Cole was born in", "Leeds")],
                generation_prompts: vec!["Ada Bell lives in".into()],
                ..ada()
            },
        );
        check(
            r#"[{"case_id": 0, "prompt": "Ada Bell was born in", "target_new": "Oslo", "subject": "Ada Bell",
                "ground_truth": "Leeds", "rephrase_prompt": "The birthplace of Ada Bell is",
                "locality_prompt": "Ben Cole was born in", "locality_ground_truth": "York"}]"#,
            Format::CounterFactFlat,
            &ada(),
        );
        check(
            r#"[{"subject": "Ada Bell", "prompt": "Ada Bell was born in", "target_new": "Oslo",
                "ground_truth": [["", "Leeds"], ["Bath"]], "rephrase": "The birthplace of Ada Bell is",
                "portability": {"Reasoning": [
                    {"prompt": "Ada Bell was born in the land of", "ground_truth": [["Norway"]]},
                    {"prompt": "unanswered", "ground_truth": []}]},
                "locality": {"Relation_Specificity": [
                    {"prompt": "Ben Cole was born in", "ground_truth": [["York", "Jorvik"]]},
                    {"prompt": " ", "ground_truth": [[""]]}]}}]"#,
            Format::KnowEdit,
            &ada_abroad(),
        );
        check(&serde_json::to_string_pretty(&[ada()]).unwrap(), Format::Rectify, &ada());
        check(&serde_json::to_string(&ada()).unwrap(), Format::Rectify, &ada());
        check(&format!(r#"{{"facts": [{}]}}"#, serde_json::to_string(&ada()).unwrap()), Format::Rectify, &ada());
    }

    #[test]
    fn references_are_of_the_new_object_and_the_same_relation() {
        let record = r#"{"requested_rewrite": {"prompt": "{} was born in", "relation_id": "P19", "subject": "Ada Bell",
            "target_new": {"str": "Oslo", "id": "Q585"}, "target_true": {"str": "Leeds", "id": "Q39121"}},
            "paraphrase_prompts": [], "neighborhood_prompts": []}"#;
        let snippets = r#"[
            {"relation_id": "P19", "target_id": "Q585", "samples": [{"name": "Ida", "text": "Ida is from Oslo."}]},
            {"relation_id": "P20", "target_id": "Q585", "samples": [{"name": "Eva", "text": "Eva died in Oslo."}]}]"#;
        let mut set = EditSet::read("facts.json", record).unwrap();
        assert!(set.facts(0..1).unwrap()[0].references.is_empty());
        set.snippets = Some(Snippets::read("snippets.json", snippets).unwrap());
        assert_eq!(set.facts(0..1).unwrap()[0].references, ["Ida is from Oslo."]);
        assert_eq!(set.snippets.unwrap().all().count(), 2);
        let failure = Snippets::read("snippets.json", "[{}]").unwrap_err();
        assert!(failure.message.contains("snippets.json") && failure.message.contains("relation_id"), "{failure}");
    }

    #[test]
    fn everything_but_the_fact_itself_may_be_absent() {
        let bare = Fact { target_true: None, paraphrases: vec![], neighbors: vec![], ..ada() };
        check(r#"{"subject": "Ada Bell", "src": "Ada Bell was born in", "alt": "Oslo"}"#, Format::Zsre, &bare);
        check(
            r#"{"concept": "Ada Bell", "text": "Ada Bell was born in", "labels": "Oslo", "locality": null}"#,
            Format::KnowEdit,
            &bare,
        );
        check(
            r#"{"subject": "Ada Bell", "prompt": "Ada Bell was born in", "target_new": "Oslo"}"#,
            Format::Rectify,
            &bare,
        );
    }

    #[test]
    fn what_is_wrong_with_a_file_is_named() {
        check_refused(" \n", &["facts.json is empty"]);
        check_refused("[]", &["holds no records"]);
        check_refused("[{\n\"src\": ]", &["is not an edit set", "line 2"]);
        check_refused("[7]", &["record 0 (line 1) is not an object"]);
        check_refused(r#"[{"question": "q"}]"#, &["found question", "zsRE (src, alt)"]);
    }

    #[test]
    fn what_is_wrong_with_a_record_is_named_with_its_line() {
        check_refused(
            &format!("[{ZSRE},\n{{\"subject\": \"Ada\", \"src\": \"Ada is\"}}]"),
            &["record 1 (line 4, taken for zsRE)", "the field \"alt\" is missing", "found"],
        );
        check_refused(
            "[\n{\"subject\": \"Ada\",\n\"prompt\": \"Ada is\",\n\"target\": \"x\"}]",
            &["record 0 (line 4, taken for Rectify facts)", "unknown field \"target\""],
        );
        check_refused(r#"{"subject": "Ada", "src": "Ada is", "alt": 7}"#, &["\"alt\" is 7; it must be text"]);
        check_refused(r#"{"subject": "Ada", "src": "Ada is", "alt": ""}"#, &["record 0", "target_new is empty"]);
        check_refused(r#"{"subject": "Ida", "src": "Ada is", "alt": "x"}"#, &["does not occur in the prompt"]);
        check_refused(r#"{"subject": "Ada", "src": "Ada, Ada is", "alt": "x"}"#, &["occurs 2 times"]);
        check_refused(
            r#"{"requested_rewrite": {"prompt": "{} is", "subject": "Ada", "target_new": {"str": "x"}}}"#,
            &["in \"requested_rewrite\"", "\"target_true\" is missing"],
        );
        check_refused(
            r#"{"requested_rewrite": {"prompt": "Ada is", "subject": "Ada",
                "target_new": {"str": "x"}, "target_true": {"str": "y"}}}"#,
            &["must have one {}"],
        );
    }

    #[test]
    fn only_the_records_asked_for_are_read() {
        let text = format!("[{ZSRE}, {{}}, 7]");
        let set = EditSet::read("facts.json", &text).unwrap();
        assert_eq!(set.facts(0..1).unwrap(), [ada()]);
        assert!(set.facts(1..2).is_err());
        assert!(set.facts(2..5).unwrap_err().message.contains("index 2..5 is outside the file, which holds 3 records"));
    }
}
