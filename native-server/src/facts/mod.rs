//! Edit sets: zsRE, CounterFact (both forms), KnowEdit and our own, told apart by their fields.
//!
//! The file's format is recognised from its first record. Records are read only when asked for, so that one
//! broken record among thousands matters to nobody who does not edit with it; a complaint then names the
//! record, its line, the field, and the format the file was taken for.

mod counterfact;
mod fields;
mod knowedit;
mod zsre;

use std::ops::Range;

pub use counterfact::Snippets;
use fields::Object;
use rectify_protocol::{Fact, Failure};
use serde_json::{Value, value::RawValue};

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
            Self::KnowEdit => &["locality", "portability", "concept", "labels", "text", "rephrase", "target_old"],
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
            // One object, or JSON Lines.
            _ => {
                let values = serde_json::Deserializer::from_str(text).into_iter::<&RawValue>();
                let values = values.collect::<Result<Vec<_>, _>>().map_err(broken)?;
                match values.as_slice() {
                    [whole] => serde_json::from_str::<Facts<'_>>(whole.get()).map_or(values, |Facts { facts }| facts),
                    _ => values,
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
    ///
    /// # Errors
    ///
    /// When there are no such places, or one of the records cannot be used.
    pub fn facts(&self, range: Range<usize>) -> Result<Vec<Fact>, Failure> {
        let (facts, bad) = self.usable(range)?;
        match bad.into_iter().next() {
            None => Ok(facts.into_iter().map(|(_, fact)| fact).collect()),
            Some((_, failure)) => Err(failure),
        }
    }

    /// The facts at these places that can be used, and what is wrong with the other records, each with its number.
    ///
    /// # Errors
    ///
    /// When there are no such places.
    #[expect(clippy::type_complexity, reason = "two lists of numbered things")]
    pub fn usable(&self, range: Range<usize>) -> Result<(Vec<(usize, Fact)>, Vec<(usize, Failure)>), Failure> {
        let Some(records) = self.records.get(range.clone()) else {
            return Err(Failure::bad_input(format!(
                "index {}..{} is outside the file, whose records are 0..{}",
                range.start,
                range.end,
                self.len()
            )));
        };
        let (mut facts, mut bad) = (Vec::new(), Vec::new());
        for (number, record) in range.zip(records) {
            match self.fact(number, record) {
                Ok(fact) => facts.push((number, fact)),
                Err(failure) => bad.push((number, failure)),
            }
        }
        Ok((facts, bad))
    }

    fn fact(&self, number: usize, record: &Record<'_>) -> Result<Fact, Failure> {
        let place = |line: usize| format!("record {number} (line {line}, taken for {})", self.format.name());
        let fact = fact_from_record(self.format, record, self.snippets.as_ref())
            .map_err(|(line, problem)| Failure::bad_input(problem).at(place(line)))?;
        fact.validate().map_err(|failure| failure.at(place(record.line)))?;
        Ok(fact)
    }
}

/// The object form of our own files.
#[derive(serde::Deserialize)]
struct Facts<'a> {
    #[serde(borrow)]
    facts: Vec<&'a RawValue>,
}

/// Fields by which people number records; they say nothing of the fact.
const NUMBERS: &[&str] = &["case_id", "id"];

/// A record's fact, or the line and the problem.
fn fact_from_record(format: Format, record: &Record<'_>, snippets: Option<&Snippets>) -> Result<Fact, (usize, String)> {
    let at_json_line = |error: serde_json::Error| {
        let problem = error.to_string();
        let problem = problem.rsplit_once(" at line ").map_or(problem.as_str(), |(problem, _)| problem);
        (record.line + error.line().saturating_sub(1), problem.replace('`', "\""))
    };
    let Value::Object(object) = serde_json::from_str(record.json).map_err(at_json_line)? else {
        return Err((record.line, "it is not an object with fields".into()));
    };
    if format == Format::Rectify {
        return match serde_json::from_str(record.json) {
            Ok(fact) => Ok(fact),
            Err(_) if object.keys().any(|field| NUMBERS.contains(&field.as_str())) => {
                let fields = object.into_iter().filter(|(field, _)| !NUMBERS.contains(&field.as_str()));
                let fact = serde_json::from_value(Value::Object(fields.collect()));
                fact.map_err(|error| (record.line, error.to_string().replace('`', "\"")))
            }
            Err(error) => Err(at_json_line(error)),
        };
    }
    let fact = match format {
        Format::Zsre => zsre::zsre(&object),
        Format::CounterFact => counterfact::nested(&object, snippets),
        Format::CounterFactFlat => counterfact::flat(&object),
        Format::KnowEdit => knowedit::read(&object),
        Format::Rectify => unreachable!("read above"),
    };
    fact.map_err(|problem| (record.line, problem))
}

#[cfg(test)]
mod tests {
    use rectify_protocol::{Consequence, Neighbor};

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
        assert!(
            set.facts(2..5).unwrap_err().message.contains("index 2..5 is outside the file, whose records are 0..3")
        );
    }

    #[test]
    fn questions_come_in_a_list_too_and_their_answers_under_another_name() {
        let listed = r#"[{"prompt": "Ada Bell was born in", "target_old": "Leeds", "target_new": "Oslo",
            "subject": "Ada Bell", "rephrase": ["The birthplace of Ada Bell is"],
            "portability": [{"prompt": "Ada Bell was born in the land of", "answer": "Norway"}],
            "locality": [{"prompt": "Ben Cole was born in", "answer": "York"}]}]"#;
        check(listed, Format::KnowEdit, &ada_abroad());
        let kinds = r#"[{"subject": "Ada Bell", "prompt": "Ada Bell was born in", "target_new": "Oslo",
            "ground_truth": "Leeds", "rephrase": "The birthplace of Ada Bell is",
            "locality": {"Relation_Specificity": [{"prompt": "Ben Cole was born in", "answer": "York"}]},
            "portability": {"Reasoning": [{"prompt": "Ada Bell was born in the land of", "answer": "Norway"}]}}]"#;
        check(kinds, Format::KnowEdit, &ada_abroad());
        let unanswered = kinds.replace("\"answer\": \"York\"", "\"reply\": \"York\"");
        check_refused(
            &unanswered,
            &["in \"locality\", \"Relation_Specificity\"", "\"ground_truth\" is missing", "reply"],
        );
        check_refused(
            &kinds.replace("\"portability\": {", "\"portability\": 7, \"x\": {"),
            &["neither an object nor a list"],
        );
    }

    #[test]
    fn json_lines_are_records_whatever_ends_a_line() {
        let line = serde_json::to_string(&ada()).unwrap();
        for end in ["\n", "\r\n", "\r\n\r\n"] {
            let text = [line.as_str(), line.as_str(), ""].join(end);
            let set = EditSet::read("facts.jsonl", &text).unwrap();
            assert_eq!(set.facts(0..2).unwrap(), [ada(), ada()]);
        }
        check_refused(&format!("{line}\n{{\"subject\": "), &["is not an edit set", "line 2"]);
        check_refused(&format!("{line}\n{{\"subject\": \"Ada\"}}\n"), &["record 1 (line 2, taken for Rectify facts)"]);
    }

    #[test]
    fn records_of_our_own_may_be_numbered() {
        let numbered = serde_json::to_string(&ada()).unwrap().replacen('{', "{\"case_id\": 3, \"id\": \"x\", ", 1);
        check(&numbered, Format::Rectify, &ada());
        check_refused(&numbered.replace("\"prompt\"", "\"promt\""), &["record 0 (line 1", "unknown field \"promt\""]);
    }

    #[test]
    fn a_record_that_cannot_be_used_is_told_apart_from_the_others() {
        let text = format!("[{ZSRE}, {{\"subject\": \"Ada\"}}, {ZSRE}]");
        let (facts, bad) = EditSet::read("facts.json", &text).unwrap().usable(0..3).unwrap();
        assert_eq!(facts, [(0, ada()), (2, ada())]);
        assert_eq!((bad.len(), bad[0].0), (1, 1));
    }
}
