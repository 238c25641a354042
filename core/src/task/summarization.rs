//! Summarization: what was a chat about?

use rectify_protocol::{Continuation, Judgement, Tally, Verdict};

use super::{
    Question, Questions, Task,
    question::{only, tallies},
    records::{self, questions},
    rouge,
};
use crate::Result;

/// SAMSum, <https://aclanthology.org/D19-5409>. The mean of ROUGE-1, ROUGE-2 and ROUGE-L; the paper's 818 chats are
/// SAMSum's validation set.
pub(super) const SUMMARIZATION: Task =
    Task { id: "summarization", name: "Summarization (SAMSum)", new_tokens: 25, read };

/// Characters that the release cuts from the end of what it decoded: as many as `<|endoftext|>` has.
const CUT: usize = 13;

struct Chat {
    /// Its lines end in `\r\n`, and stay so.
    dialogue: String,
    summary: String,
}

/// JSON, or a table with a header and commas between its columns.
fn read(file: &str, text: &str) -> Result<Questions> {
    questions(records::json_or_table(file, text, ',')?, |record| {
        Ok(Chat { dialogue: record.text("dialogue")?, summary: record.text("summary")? })
    })
}

impl Question for Chat {
    fn prompts(&self) -> Vec<String> {
        vec![format!("{}\nTL;DR:", self.dialogue)]
    }

    fn answers(&self) -> Vec<String> {
        vec![format!(" {}", self.summary)]
    }

    /// Paper: ROUGE as the Python package `rouge` 1.0.1 has it, of a reply that lost its last 13 characters, which
    /// are GPT-2's end-of-text mark if the model got that far and words if it did not; nothing for a single character.
    /// Strict: ROUGE as in Google's `rouge_score`, of the whole reply.
    fn judge(&self, replies: &[Continuation]) -> Judgement {
        let reply = only(replies);
        let cut = if reply.ended { 0 } else { CUT };
        let n_kept = reply.text.chars().count().saturating_sub(cut);
        let kept: String = reply.text.chars().take(n_kept).collect();
        let paper = if n_kept > 1 { rouge::released(&kept, &self.summary) } else { None };
        let strict = (!reply.text.trim().is_empty()).then(|| rouge::google(&reply.text, &self.summary));
        Judgement { paper: verdict(paper), strict: verdict(strict), ..Judgement::default() }
    }
}

fn verdict(scores: Option<[f64; 3]>) -> Verdict {
    let [one, two, l] = scores.unwrap_or_default().map(|score| Tally(score, 1.0));
    Verdict {
        parts: tallies([("ROUGE-1", one), ("ROUGE-2", two), ("ROUGE-L", l)]),
        unparsed: usize::from(scores.is_none()),
    }
}

#[cfg(test)]
mod tests {
    use crate::task::tests::{complaint, prompts};

    #[test]
    fn the_prompt_keeps_the_line_ends_of_the_chat() {
        let array = r#"[{"id":"1","summary":"B is ill.","dialogue":"A: Coming?\r\nB: I am ill. "}]"#;
        assert_eq!(prompts("summarization", array), ["A: Coming?\r\nB: I am ill. \nTL;DR:"]);
        let table = "id,dialogue,summary\n1,\"A: Coming?\r\nB: I am ill. \",B is ill.\n";
        assert_eq!(prompts("summarization", table), prompts("summarization", array));
    }

    #[test]
    fn a_chat_without_words_is_named() {
        let array = r#"[{"id":"1","summary":"B is ill.","dialogue":" "}]"#;
        assert_eq!(
            complaint("summarization", array),
            "f: record 1: field \"dialogue\": expected text that is not blank, found \" \""
        );
    }
}
