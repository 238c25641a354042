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

mod closed_qa;
mod dialogue;
mod ner;
mod nli;
mod open_qa;
mod question;
mod reasoning;
mod records;
mod rouge;
mod sample;
mod score;
mod sentiment;
mod summarization;
mod two_way;

pub use question::{Question, Questions, Task};
pub use sample::{Records, judged};

/// The tasks of the paper, in its order: `all` means these, and folders have files for them.
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

/// Whatever else can be asked by name: two of them in another way, without help and exactly as released.
pub const MORE: &[Task] = &[reasoning::UNAIDED, open_qa::RELEASED];

impl Task {
    /// The task or variant of this id.
    pub fn find(id: &str) -> Option<&'static Self> {
        TASKS.iter().chain(MORE).find(|task| task.id == id)
    }
}

#[cfg(test)]
mod tests;
