//! Questions with two possible answers, which three tasks ask.

use rectify_protocol::{Continuation, Judgement, Tally, Verdict};

use super::{
    Question,
    question::{is_exactly, only, tallies, verdict},
};

/// A prompt to be answered by one of two words.
pub(super) struct TwoWay {
    /// The text to be continued.
    pub prompt: String,
    /// The two answers, as the prompt spells them.
    pub words: [&'static str; 2],
    /// Which of them is right.
    pub right: usize,
    /// What the released scorer makes of a reply with both.
    pub both: Both,
}

/// What a reply with both words counts as. One token has no room for two, so longer answers alone can tell.
#[derive(Clone, Copy)]
pub(super) enum Both {
    /// As a right and a wrong answer: the total grows by two.
    RightAndWrong,
    /// As the first word.
    First,
}

impl Question for TwoWay {
    fn prompts(&self) -> Vec<String> {
        vec![self.prompt.clone()]
    }

    fn answers(&self) -> Vec<String> {
        vec![format!(" {}", self.words[self.right])]
    }

    /// Paper: which word is contained, in any case, even inside another word ("know" contains "no"); the score is the
    /// release's `total_acc`, in which a reply without either is wrong. Its `acc` leaves such replies out: `also`.
    /// Strict: one of the two words exactly.
    fn judge(&self, replies: &[Continuation]) -> Judgement {
        let reply = only(replies);
        let lower = reply.text.to_lowercase();
        let mut said = self.words.map(|word| lower.contains(&word.to_lowercase()));
        if let Both::First = self.both {
            said[1] &= !said[0];
        }
        let n_said = said.iter().filter(|said| **said).count();
        let Tally(right, _) = Tally::one(said[self.right]);
        let exactly = self.words.map(|word| is_exactly(reply, word));
        Judgement {
            paper: Verdict {
                parts: tallies([("accuracy", Tally(right, n_said.max(1) as f64))]),
                unparsed: usize::from(n_said == 0),
            },
            strict: verdict("accuracy", exactly[self.right], exactly.contains(&true)),
            also: tallies([("accuracy of the parsed", Tally(right, n_said as f64))]),
        }
    }
}
