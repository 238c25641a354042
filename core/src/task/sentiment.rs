//! Sentiment analysis: is a snippet of a film review positive or negative?

use super::{
    Question, Questions, Task,
    records::{self, questions},
    two_way::{Both, TwoWay},
};
use crate::{Error, Result};

/// SST-2, <https://aclanthology.org/D13-1170>, as split by GLUE. Two-way accuracy.
///
/// The prompt lacks two spaces that the paper's appendix has; the released code is followed.
pub(super) const SENTIMENT: Task = Task { id: "sentiment", name: "Sentiment analysis (SST-2)", new_tokens: 1, read };

const LABELS: &[&str] = &["1", "0"];

/// GLUE's table with a header, JSON with GLUE's names or with SetFit's, or lines `label text` without a header.
fn read(file: &str, text: &str) -> Result<Questions> {
    let text = records::content(file, text)?;
    let first = text.trim_start().lines().next().unwrap_or_default();
    if first.contains('\t') || first.starts_with(['{', '[']) {
        return questions(records::json_or_table(file, text, '\t')?, |record| {
            let sentence = if record.has("text") { "text" } else { "sentence" };
            Ok(question(&record.text(sentence)?, record.one_of("label", LABELS)?))
        });
    }
    let lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(number, line)| {
            let labelled = line.split_once(' ').filter(|(_, snippet)| !snippet.trim().is_empty());
            let read =
                labelled.and_then(|(label, snippet)| Some((LABELS.iter().position(|it| *it == label)?, snippet)));
            let (right, snippet) = read.ok_or_else(|| {
                Error::bad_file(file, format!("line {number}: expected 0 or 1, a space and a text, found {line:?}"))
            })?;
            Ok(Box::new(question(snippet, right)) as Box<dyn Question>)
        })
        .collect()
}

fn question(snippet: &str, right: usize) -> TwoWay {
    TwoWay {
        prompt: format!(
            "For each snippet of text,label the sentiment of the text as positive or negative.\
             The answer should be exact 'positive' or 'negative'. text: {snippet} answer:"
        ),
        words: ["positive", "negative"],
        right,
        both: Both::First,
    }
}

#[cfg(test)]
mod tests {
    use crate::task::tests::{complaint, prompts};

    const PROMPT: &str = "For each snippet of text,label the sentiment of the text as positive or negative.The answer \
                          should be exact 'positive' or 'negative'. text: a warm film .  answer:";

    #[test]
    fn the_prompt_is_the_released_one_and_keeps_a_final_blank() {
        assert_eq!(prompts("sentiment", "1 a warm film . \n\n"), [PROMPT]);
        assert_eq!(prompts("sentiment", "sentence\tlabel\na warm film . \t1\n"), [PROMPT]);
        assert_eq!(
            prompts("sentiment", r#"{"text": "a warm film . ", "label": 1, "label_text": "positive"}"#),
            [PROMPT]
        );
        assert_eq!(prompts("sentiment", r#"[{"sentence": "a warm film . ", "label": "1"}]"#), [PROMPT]);
    }

    #[test]
    fn a_line_without_a_label_or_a_text_is_named() {
        let misnamed = complaint("sentiment", r#"{"txt": "good", "label": 1}"#);
        assert!(misnamed.contains("field \"sentence\": expected"), "{misnamed}");
        assert!(misnamed.contains("found no such field; there are label, txt"), "{misnamed}");
        let complaint = |line: &str| complaint("sentiment", &format!("1 good\n{line}\n"));
        assert_eq!(complaint("2 odd"), "f: line 2: expected 0 or 1, a space and a text, found \"2 odd\"");
        assert_eq!(complaint("0 "), "f: line 2: expected 0 or 1, a space and a text, found \"0 \"");
        assert_eq!(complaint("odd"), "f: line 2: expected 0 or 1, a space and a text, found \"odd\"");
    }
}
