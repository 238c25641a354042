//! The eight general-ability tasks of "Model Editing Harms General Abilities of Large Language Models", as pure
//! functions: <https://arxiv.org/abs/2401.04700>, with the prompts of the released code.
//!
//! A [`Task`] reads a file into [`Question`]s. A question says what to ask; each prompt is continued greedily, once,
//! by [`Task::new_tokens`] tokens; and it judges what came back in two ways. `paper` is what the released scorer
//! means by right, its quirks included, so that the paper's figures can be compared with. `strict` is what the
//! metric's name promises. Judgements add up: [`rectify_protocol::TaskScores`] makes scores of rows.
//!
//! A record that cannot be asked, because a text is blank or a field is missing or says something else than expected,
//! is an error that names file, place and field. It is never left out: a score over fewer records than the file has
//! would pass for a score over all of them.
//!
//! Nothing here knows a model, a tokenizer or a file. Begin reading at [`TASKS`], then read any one task.

use std::collections::BTreeMap;

use rectify_protocol::{Continuation, Judgement, Tally, Verdict};

use crate::Result;

mod closed_qa;
mod dialogue;
mod ner;
mod nli;
mod open_qa;
mod reasoning;
mod records;
mod rouge;
mod score;
mod sentiment;
mod summarization;
mod two_way;

/// The tasks of the paper, in its order.
pub const TASKS: &[Task] = &[
    reasoning::REASONING,
    nli::NLI,
    open_qa::OPEN_QA,
    closed_qa::CLOSED_QA,
    dialogue::DIALOGUE,
    summarization::SUMMARIZATION,
    ner::NER,
    sentiment::SENTIMENT,
];

/// Other ways to ask two of them: without help, and exactly as released.
pub const VARIANTS: &[Task] = &[reasoning::UNAIDED, open_qa::RELEASED];

/// A task: how its files are read, and how long its answers may be.
#[derive(Clone, Copy, Debug)]
pub struct Task {
    /// What files and command lines call it.
    pub id: &'static str,
    /// What a person reads, with the data set.
    pub name: &'static str,
    /// Tokens to generate after each prompt.
    pub new_tokens: usize,
    /// The questions in a file's text; the file's name is for messages.
    pub read: fn(file: &str, text: &str) -> Result<Questions>,
}

/// The records of a file, in its order.
pub type Questions = Vec<Box<dyn Question>>;

/// One record of a task.
pub trait Question: Send + Sync {
    /// The texts to be continued, mostly one. Every blank in them matters.
    fn prompts(&self) -> Vec<String>;

    /// A right answer to each prompt, as one would write it behind the prompt's last character.
    fn answers(&self) -> Vec<String>;

    /// How right the replies are, one to each prompt.
    fn judge(&self, replies: &[Continuation]) -> Judgement;
}

impl Task {
    /// The task or variant of this id.
    pub fn find(id: &str) -> Option<&'static Self> {
        TASKS.iter().chain(VARIANTS).find(|task| task.id == id)
    }
}

/// The reply to a question with one prompt.
fn only(replies: &[Continuation]) -> &Continuation {
    let [reply] = replies else { panic!("{} replies to one prompt; the caller promises one each", replies.len()) };
    reply
}

/// Whether a reply is this word and nothing else. Decoders of SentencePiece swallow the space before it.
fn is_exactly(reply: &Continuation, word: &str) -> bool {
    reply.text.strip_prefix(' ').unwrap_or(&reply.text) == word
}

/// A verdict on one reply, of one part. What was not parsed is never right.
fn verdict(part: &str, right: bool, parsed: bool) -> Verdict {
    Verdict { parts: tallies([(part, Tally::one(right))]), unparsed: usize::from(!parsed) }
}

fn tallies<const N: usize>(parts: [(&str, Tally); N]) -> BTreeMap<String, Tally> {
    parts.map(|(name, tally)| (name.to_owned(), tally)).into()
}

#[cfg(test)]
mod tests;
