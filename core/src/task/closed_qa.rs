//! Closed-domain question answering: yes or no, by a passage.

use super::{
    Questions, Task,
    records::{self, questions},
    two_way::{Both, TwoWay},
};
use crate::Result;

/// BoolQ, <https://arxiv.org/abs/1905.10044>. Accuracy, which the paper calls exact match.
///
/// The release wants exactly " yes" or " no" of the unedited model, and of an edited one a reply that contains the
/// word. One rule serves both here: `paper` is the second, `strict` the first.
pub(super) const CLOSED_QA: Task =
    Task { id: "closed_qa", name: "Closed-domain question answering (BoolQ)", new_tokens: 1, read };

/// JSON; the answer is `true` or `false`, or the words `"True"` and `"False"`. SuperGLUE calls it `label`, and its
/// passages begin with the article's title.
fn read(file: &str, text: &str) -> Result<Questions> {
    questions(records::json(file, text)?, |record| {
        let (passage, question) = (record.text("passage")?, record.text("question")?);
        Ok(TwoWay {
            prompt: format!(
                "Please answer the given question based on the passage. The answer should be exact 'yes' or 'no'. \
                 passage: {passage} question: {question}. answer:"
            ),
            words: ["yes", "no"],
            right: record.one_of(if record.has("label") { "label" } else { "answer" }, &["True", "False"])?,
            both: Both::First,
        })
    })
}

#[cfg(test)]
mod tests {
    use crate::task::tests::{complaint, prompts};

    #[test]
    fn the_prompt_is_the_released_one() {
        let expected = "Please answer the given question based on the passage. The answer should be exact 'yes' or \
                        'no'. passage: Ice is cold. question: is ice cold. answer:";
        for answer in [r#""answer":true"#, r#""answer":"True""#, r#""label":true"#] {
            let line = format!(r#"{{"question":"is ice cold","passage":"Ice is cold.",{answer}}}"#);
            assert_eq!(prompts("closed_qa", &line), [expected]);
        }
    }

    #[test]
    fn an_empty_passage_or_another_answer_is_named() {
        let line = r#"{"question":"q","passage":"","answer":true}"#;
        assert!(
            complaint("closed_qa", line).contains("field \"passage\": expected text that is not blank, found \"\"")
        );
        let line = r#"{"question":"q","passage":"p","answer":"maybe"}"#;
        assert!(complaint("closed_qa", line).contains("expected \"True\" or \"False\", found \"maybe\""));
    }
}
