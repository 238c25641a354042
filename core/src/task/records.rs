//! Files of records: JSON Lines, a JSON array, or a table with a header. Every complaint names file, place and field.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Question, Questions};
use crate::{Error, Result};

/// One record of a file, and where it stands there.
pub(super) struct Record {
    file: String,
    place: String,
    fields: BTreeMap<String, Value>,
}

/// Every record as a question.
pub(super) fn questions<Q: Question + 'static>(
    records: Vec<Record>,
    question: impl Fn(&Record) -> Result<Q>,
) -> Result<Questions> {
    records.iter().map(|record| Ok(Box::new(question(record)?) as Box<dyn Question>)).collect()
}

/// What a file holds, without the byte order mark that some editors put first.
///
/// # Errors
///
/// When nothing is in it.
pub(super) fn content<'a>(file: &str, text: &'a str) -> Result<&'a str> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.trim().is_empty() {
        return Err(Error::bad_file(file, "the file is empty"));
    }
    Ok(text)
}

/// The objects of a JSON array, or of JSON Lines. Blank lines are passed over.
pub(super) fn json(file: &str, text: &str) -> Result<Vec<Record>> {
    let text = content(file, text)?;
    let record = |place: String, fields| Record { file: file.to_owned(), place, fields };
    if text.trim_start().starts_with('[') {
        let rows: Vec<BTreeMap<String, Value>> =
            serde_json::from_str(text).map_err(|error| Error::bad_file(file, error.to_string()))?;
        let records = (1..).zip(rows).map(|(number, fields)| record(format!("record {number}"), fields)).collect();
        return not_none(file, records);
    }
    let lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(number, line)| {
            let fields = serde_json::from_str(line).map_err(|error| {
                // Its own place is in the file's first and only line, which would mislead.
                let error = error.to_string();
                let what = error.split(" at line ").next().unwrap_or_default();
                Error::bad_file(file, format!("line {number}: not a JSON object: {what}"))
            })?;
            Ok(record(format!("line {number}"), fields))
        })
        .collect()
}

/// The records of a file that begins like JSON, or else of a table with this between its columns.
pub(super) fn json_or_table(file: &str, text: &str, between: char) -> Result<Vec<Record>> {
    let content = content(file, text)?;
    if content.trim_start().starts_with(['{', '[']) { json(file, content) } else { table(file, content, between) }
}

/// The rows of a table whose columns are separated by tabs or commas, quoted as CSV, and named in the first line.
///
/// GLUE's own files are not quoted on purpose, but the release reads them with Python's `csv`, so that quotation
/// marks around a cell are lost and unbalanced ones merge lines.
fn table(file: &str, text: &str, between: char) -> Result<Vec<Record>> {
    let text = content(file, text)?;
    let mut reader = csv::ReaderBuilder::new().delimiter(between as u8).flexible(true).from_reader(text.as_bytes());
    let broken = |error: csv::Error| Error::bad_file(file, error.to_string());
    let columns = reader.headers().map_err(broken)?.clone();
    let rows = reader.records().map(|row| {
        let row = row.map_err(broken)?;
        let place = format!("line {}", row.position().map_or(0, csv::Position::line));
        let cells = columns.iter().zip(&row).map(|(column, cell)| (column.to_owned(), Value::from(cell)));
        Ok(Record { file: file.to_owned(), place, fields: cells.collect() })
    });
    not_none(file, rows.collect::<Result<_>>()?)
}

fn not_none(file: &str, records: Vec<Record>) -> Result<Vec<Record>> {
    if records.is_empty() { Err(Error::bad_file(file, "there is no record in it")) } else { Ok(records) }
}

impl Record {
    /// Whether the record has such a field.
    pub(super) fn has(&self, field: &str) -> bool {
        self.fields.contains_key(field)
    }

    /// A text that is not blank, exactly as it stands.
    pub(super) fn text(&self, field: &str) -> Result<String> {
        match self.fields.get(field) {
            Some(Value::String(text)) if !text.trim().is_empty() => Ok(text.clone()),
            _ => Err(self.wrong(field, "text that is not blank")),
        }
    }

    /// A list of at least one text.
    pub(super) fn texts(&self, field: &str) -> Result<Vec<String>> {
        let wrong = || self.wrong(field, "a list of texts that are not blank");
        let list =
            self.fields.get(field).and_then(Value::as_array).filter(|list| !list.is_empty()).ok_or_else(wrong)?;
        let text = |value: &Value| value.as_str().filter(|text| !text.trim().is_empty()).map(str::to_owned);
        list.iter().map(text).collect::<Option<_>>().ok_or_else(wrong)
    }

    /// Which of the words a field holds. A JSON `true` is `True`, a number its digits.
    pub(super) fn one_of(&self, field: &str, words: &[&str]) -> Result<usize> {
        let found = self.fields.get(field).map(written);
        let quoted: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
        let place = found.and_then(|found| words.iter().position(|word| *word == found));
        place.ok_or_else(|| self.wrong(field, &quoted.join(" or ")))
    }

    /// Which of the names a label has, or is the number of: data sets are passed on in both ways.
    pub(super) fn label(&self, field: &str, names: &[&str]) -> Result<usize> {
        let found = self.fields.get(field).map(written).unwrap_or_default();
        let numbers: Vec<String> = (0..names.len()).map(|number| number.to_string()).collect();
        match numbers.iter().position(|number| *number == found) {
            Some(number) => Ok(number),
            None => self.one_of(field, names),
        }
    }

    /// What one says when a field is not as expected.
    pub(super) fn wrong(&self, field: &str, expected: &str) -> Error {
        let found = match self.fields.get(field) {
            Some(value) if value.to_string().chars().count() <= 60 => format!("found {value}"),
            Some(value) => format!("found {} …", value.to_string().chars().take(60).collect::<String>()),
            None => {
                let names: Vec<&str> = self.fields.keys().map(String::as_str).collect();
                format!("found no such field; there are {}", names.join(", "))
            }
        };
        Error::bad_file(&self.file, format!("{}: field {field:?}: expected {expected}, {found}", self.place))
    }
}

/// A value as a table would have it.
fn written(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Bool(true) => "True".into(),
        Value::Bool(false) => "False".into(),
        value => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check<T: PartialEq + std::fmt::Debug>(found: Result<T>, expected: std::result::Result<T, &str>) {
        assert_eq!(found.map_err(|error| error.to_string()), expected.map_err(str::to_owned));
    }

    fn texts(records: Result<Vec<Record>>, field: &str) -> Result<Vec<String>> {
        records?.iter().map(|record| record.text(field)).collect()
    }

    #[test]
    fn lines_and_arrays_are_both_read() {
        let both = Ok(vec!["x".to_owned(), "y".to_owned()]);
        check(texts(json("f", "{\"a\":\"x\"}\r\n\r\n{\"a\":\"y\"}\r\n"), "a"), both.clone());
        check(texts(json("f", "\u{feff}[{\"a\":\"x\"},\n{\"a\":\"y\"}]"), "a"), both.clone());
        check(texts(table("f", "\u{feff}b\ta\n1\tx\n2\ty\n", '\t'), "a"), both.clone());
        check(texts(json_or_table("f", "b,a\n1,x\n2,\"y\"\n", ','), "a"), both.clone());
        check(texts(json_or_table("f", " [{\"a\":\"x\"},{\"a\":\"y\"}]", ','), "a"), both);
    }

    #[test]
    fn blanks_and_line_ends_inside_a_text_stay() {
        let kept = Ok(vec![" x\r\ny ".to_owned()]);
        check(texts(json("f", r#"{"a": " x\r\ny "}"#), "a"), kept.clone());
        check(texts(table("f", "a,b\n\" x\r\ny \",1\n", ','), "a"), kept);
    }

    #[test]
    fn quotation_marks_of_a_table_are_read_as_python_reads_them() {
        check(texts(table("f", "a\n\"x \"\"y\"\" z\" w\n", '\t'), "a"), Ok(vec!["x \"y\" z w".to_owned()]));
        check(texts(table("f", "a\nx \"y\" z\n", '\t'), "a"), Ok(vec!["x \"y\" z".to_owned()]));
        check(texts(table("f", "a\n\"x\ny\n", '\t'), "a"), Ok(vec!["x\ny\n".to_owned()]));
    }

    #[test]
    fn a_complaint_names_file_place_and_field() {
        check(texts(json("f", " \n"), "a"), Err("f: the file is empty"));
        check(texts(json("f", "[]"), "a"), Err("f: there is no record in it"));
        check(texts(table("f", "a\tb\n", '\t'), "a"), Err("f: there is no record in it"));
        check(
            texts(json("f", "{\"a\":\"x\"}\n\n{\"b\":\"y\"}"), "a"),
            Err("f: line 3: field \"a\": expected text that is not blank, found no such field; there are b"),
        );
        check(
            texts(json("f", "[{\"a\":\" \"}]"), "a"),
            Err("f: record 1: field \"a\": expected text that is not blank, found \" \""),
        );
        check(
            texts(table("f", "a\tb\n1\tx\n2\n", '\t'), "b"),
            Err("f: line 3: field \"b\": expected text that is not blank, found no such field; there are a"),
        );
        check(
            texts(json("f", "{\"a\":\"x\"}\n{\"a\":"), "a"),
            Err("f: line 2: not a JSON object: EOF while parsing a value"),
        );
        check(
            texts(json("f", "[{\"a\":\"x\"}, 3]"), "a"),
            Err("f: invalid type: integer `3`, expected a map at line 1 column 13"),
        );
    }

    #[test]
    fn a_list_has_texts_and_nothing_else() {
        let list = |text: &str| json("f", text)?[0].texts("a");
        check(list(r#"{"a":["x","y"]}"#), Ok(vec!["x".to_owned(), "y".to_owned()]));
        for (wrong, found) in [("[]", "[]"), ("[\"x\", 3]", "[\"x\",3]"), ("[\"\"]", "[\"\"]"), ("\"x\"", "\"x\"")] {
            let message = format!("f: line 1: field \"a\": expected a list of texts that are not blank, found {found}");
            check(list(&format!("{{\"a\":{wrong}}}")), Err(&message));
        }
    }

    #[test]
    fn a_word_is_one_of_those_expected() {
        let truth = |text: &str| json("f", text)?[0].one_of("a", &["True", "False"]);
        check(truth(r#"{"a":"True"}"#), Ok(0));
        check(truth(r#"{"a":false}"#), Ok(1));
        check(truth(r#"{"a":"true"}"#), Err("f: line 1: field \"a\": expected \"True\" or \"False\", found \"true\""));
        check(truth(r#"{"a":1}"#), Err("f: line 1: field \"a\": expected \"True\" or \"False\", found 1"));
    }
}
