//! Open-domain question answering: a name or a number, with a passage that may hold it.

use rectify_protocol::{Continuation, Judgement, Tally};

use super::{
    Question, Questions, Task,
    question::{only, tallies, verdict},
    records::{self, questions},
    score::{contains, exact_match, normalize, token_f1},
};
use crate::Result;

/// Natural Questions, open, <https://aclanthology.org/Q19-1026>, with one passage that a language model wrote for each
/// question. Exact match. Asked as the same group's PRUNE asks, <https://arxiv.org/abs/2405.16821>: with `. Answer:`.
pub(super) const OPEN_QA: Task = Task {
    id: "open_qa",
    name: "Open-domain question answering (NQ)",
    new_tokens: 20,
    read: |file, text| read(file, text, ". Answer:"),
};

/// The same, asked as the release asks: the prompt ends with the question.
pub(super) const RELEASED: Task = Task {
    id: "open_qa_released",
    name: "Open-domain question answering (NQ, released prompt)",
    new_tokens: 20,
    read: |file, text| read(file, text, ""),
};

struct OpenQuestion {
    passage: String,
    question: String,
    ending: &'static str,
    aliases: Vec<String>,
}

/// JSON; of `output`, a list of passages, the first is used.
fn read(file: &str, text: &str, ending: &'static str) -> Result<Questions> {
    questions(records::json(file, text)?, |record| {
        Ok(OpenQuestion {
            passage: record.texts("output")?.swap_remove(0),
            question: record.text("question")?,
            ending,
            aliases: record.texts("answer")?,
        })
    })
}

impl Question for OpenQuestion {
    fn prompts(&self) -> Vec<String> {
        let Self { passage, question, ending, .. } = self;
        vec![format!(
            "Refer to the passage below and answer the following question. \
             Passage: {passage} Question: {question}{ending}"
        )]
    }

    fn answers(&self) -> Vec<String> {
        vec![format!(" {}", self.aliases[0])]
    }

    /// Paper: the first word, the last word, or the first words up to any one are an alias. That is what the released
    /// scorer does once its flag, which nothing resets, is set; before, in the first few records, it compares more
    /// spans and may count a record twice. It also reads its own prompt as part of the reply, which is not repeated.
    /// Strict: the reply's first line is an alias, <https://arxiv.org/abs/1704.00051>.
    fn judge(&self, replies: &[Continuation]) -> Judgement {
        let text = &only(replies).text;
        let line = text.lines().next().unwrap_or_default();
        let matches = |span: &str| self.aliases.iter().any(|alias| exact_match(span, alias));
        let normal = normalize(text);
        let words: Vec<&str> = normal.split(' ').collect();
        let mut spans =
            (1..=words.len()).map(|n| words[..n].join(" ")).chain(words.last().map(|word| word.to_string()));
        // Some aliases, such as ")", are nothing once normalized; silence is not an answer to them.
        let (spoke, began) = (!text.trim().is_empty(), !line.trim().is_empty());
        let best_f1 = self.aliases.iter().map(|alias| token_f1(line, alias)).fold(0.0, f64::max);
        let contained = spoke && self.aliases.iter().any(|alias| contains(text, alias));
        Judgement {
            paper: verdict("exact match", spoke && spans.any(|span| matches(&span)), spoke),
            strict: verdict("exact match", began && matches(line), began),
            also: tallies([("contained", Tally::one(contained)), ("token F1", Tally(best_f1, 1.0))]),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::task::tests::{complaint, prompts};

    #[test]
    fn the_prompt_is_the_released_one_with_an_ending_or_without() {
        let line = r#"{"question":"who won?","answer":["Ada"],"output":["\n\nAda won.","another"]}"#;
        let released = "Refer to the passage below and answer the following question. Passage: \n\nAda won. \
                        Question: who won?";
        assert_eq!(prompts("open_qa_released", line), [released]);
        assert_eq!(prompts("open_qa", line), [format!("{released}. Answer:")]);
    }

    #[test]
    fn a_record_without_passage_or_answers_is_named() {
        let line = r#"{"question":"who won?","answer":["Ada"],"output":[]}"#;
        assert!(complaint("open_qa", line).contains("field \"output\": expected a list of texts"));
        let line = r#"{"question":"who won?","answer":["Ada"],"output":["\n\n"]}"#;
        assert!(
            complaint("open_qa", line).contains("f: line 1: field \"output\": expected a list of texts that are not")
        );
        let line = r#"{"question":"who won?","answer":[],"output":["Ada won."]}"#;
        assert!(complaint("open_qa", line).contains("field \"answer\": expected a list of texts"));
    }
}
