//! What a task is, and what its questions share.

use std::collections::BTreeMap;

use rectify_protocol::{Continuation, Judgement, Tally, Verdict};

use crate::Result;

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

/// The reply to a question with one prompt.
pub(super) fn only(replies: &[Continuation]) -> &Continuation {
    let [reply] = replies else { panic!("{} replies to one prompt; the caller promises one each", replies.len()) };
    reply
}

/// Whether a reply is this word and nothing else. Decoders of SentencePiece swallow the space before it.
pub(super) fn is_exactly(reply: &Continuation, word: &str) -> bool {
    reply.text.strip_prefix(' ').unwrap_or(&reply.text) == word
}

/// A verdict on one reply, of one part. What was not parsed is never right.
pub(super) fn verdict(part: &str, right: bool, parsed: bool) -> Verdict {
    Verdict { parts: tallies([(part, Tally::one(right))]), unparsed: usize::from(!parsed) }
}

pub(super) fn tallies<const N: usize>(parts: [(&str, Tally); N]) -> BTreeMap<String, Tally> {
    parts.map(|(name, tally)| (name.to_owned(), tally)).into()
}
