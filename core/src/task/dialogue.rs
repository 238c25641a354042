//! Dialogue: which of four utterances goes on with a conversation?

use rectify_protocol::{Continuation, Judgement};

use super::{
    Question, Questions, Task,
    question::{is_exactly, only, verdict},
    records::{self, questions},
};
use crate::Result;

/// MuTual, <https://aclanthology.org/2020.acl-main.130>. Recall₄@1: one answer of four, right or not.
pub(super) const DIALOGUE: Task = Task { id: "dialogue", name: "Dialogue (MuTual)", new_tokens: 1, read };

const LETTERS: [&str; 4] = ["A", "B", "C", "D"];

struct Dialogue {
    article: String,
    options: [String; 4],
    right: &'static str,
}

/// JSON; MuTual's own files, of one object each, may stand one to a line.
fn read(file: &str, text: &str) -> Result<Questions> {
    questions(records::json(file, text)?, |record| {
        let options = record.texts("options")?;
        Ok(Dialogue {
            article: record.text("article")?,
            options: options.try_into().map_err(|_| record.wrong("options", "four texts"))?,
            right: LETTERS[record.one_of("answers", &LETTERS)?],
        })
    })
}

impl Question for Dialogue {
    /// The released prompt; the paper's appendix spells "Choices" right and has spaces between the options.
    fn prompts(&self) -> Vec<String> {
        let Self { article, options: [a, b, c, d], .. } = self;
        vec![format!(
            "Q: {article} Which choice is correct? Answer Chioces: (A){a}(B){b}(C){c}(D){d} \
             A: Among A through D, the answer is"
        )]
    }

    fn answers(&self) -> Vec<String> {
        vec![format!(" {}", self.right)]
    }

    /// Paper: the right letter anywhere in the token, so that " Dad" says D; without any of the four letters it says
    /// nothing. (The release also drops "Chi" after an edit, and only then: one rule serves both here.)
    /// Strict: the letter exactly.
    fn judge(&self, replies: &[Continuation]) -> Judgement {
        let reply = only(replies);
        let contained = LETTERS.iter().any(|letter| reply.text.contains(letter));
        let exact = LETTERS.iter().any(|letter| is_exactly(reply, letter));
        Judgement {
            paper: verdict("recall", reply.text.contains(self.right), contained),
            strict: verdict("recall", is_exactly(reply, self.right), exact),
            ..Judgement::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::task::tests::{complaint, prompts};

    #[test]
    fn the_prompt_is_the_released_one_misspelling_included() {
        let line = r#"{"answers":"B","options":["m : a","m : b","m : c","m : d"],"article":"f : hi .","id":"dev_1"}"#;
        let expected = "Q: f : hi . Which choice is correct? Answer Chioces: (A)m : a(B)m : b(C)m : c(D)m : d \
                        A: Among A through D, the answer is";
        assert_eq!(prompts("dialogue", line), [expected]);
    }

    #[test]
    fn there_are_four_options_and_a_letter() {
        let three = r#"{"answers":"B","options":["a","b","c"],"article":"f : hi ."}"#;
        assert!(complaint("dialogue", three).contains("field \"options\": expected four texts, found"));
        let fifth = r#"{"answers":"E","options":["a","b","c","d"],"article":"f : hi ."}"#;
        assert!(complaint("dialogue", fifth).contains("expected \"A\" or \"B\" or \"C\" or \"D\", found \"E\""));
    }
}
