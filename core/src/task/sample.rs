//! A task's records, and samples of them.

use std::sync::Arc;

use rectify_protocol::{Continuation, Item, Judgement};

use super::{Question, Task};
use crate::Result;

/// A task with the records of one file, or a sample of them. Copies share the records.
#[derive(Clone)]
pub struct Records {
    /// The task.
    pub task: &'static Task,
    /// The file's name.
    pub file: String,
    /// The file's SHA-256.
    pub hash: String,
    /// How many records the file has.
    pub of: usize,
    /// Records, by their number in the file.
    pub questions: Vec<(usize, Arc<dyn Question>)>,
}

impl Records {
    /// Every record of a file's text. `path` is its name in messages.
    ///
    /// # Errors
    ///
    /// When a record cannot be asked.
    pub fn read(task: &'static Task, path: &str, text: &str, hash: String) -> Result<Self> {
        let questions: Vec<(usize, Arc<dyn Question>)> =
            (0..).zip((task.read)(path, text)?.into_iter().map(Arc::from)).collect();
        let file = path.rsplit(['/', '\\']).next().unwrap_or(path).to_owned();
        Ok(Self { task, file, hash, of: questions.len(), questions })
    }

    /// At most `limit` of the records, at equal distances: number `⌊i·n / limit⌋` for each i.
    pub fn sample(&self, limit: usize) -> Self {
        let n = self.questions.len();
        let wanted = limit.min(n);
        let questions = (0..wanted).map(|i| self.questions[i * n / wanted].clone()).collect();
        Self { questions, ..self.clone() }
    }

    /// The records without their numbers.
    pub fn asked(&self) -> Vec<&dyn Question> {
        self.questions.iter().map(|(_, question)| question.as_ref()).collect()
    }
}

impl Records {
    /// Each record that was answered, with what was said. `continuations` are those of all prompts of all records.
    pub fn items(&self, continuations: &[Option<Continuation>]) -> Vec<Item> {
        let mut rest = continuations;
        let item = |(number, question): &(usize, Arc<dyn Question>)| {
            let prompts = question.prompts();
            let replies = replies_of(prompts.len(), &mut rest)?;
            let judgement = question.judge(&replies);
            let replies = replies.into_iter().map(|reply| reply.text).collect();
            Some(Item { number: *number, answers: question.answers(), prompts, replies, judgement })
        };
        self.questions.iter().filter_map(item).collect()
    }
}

/// How right the replies to some questions are; absent where a prompt was not answered. `continuations` are those of
/// all prompts of all questions, in order.
pub fn judged(questions: &[&dyn Question], continuations: &[Option<Continuation>]) -> Vec<Option<Judgement>> {
    let mut rest = continuations;
    let judged = |question: &&dyn Question| Some(question.judge(&replies_of(question.prompts().len(), &mut rest)?));
    questions.iter().map(judged).collect()
}

/// The next replies, one to each of so many prompts, taken off `rest`; `None` where a prompt was not answered.
fn replies_of(prompts: usize, rest: &mut &[Option<Continuation>]) -> Option<Vec<Continuation>> {
    let (own, others) = rest.split_at(prompts);
    *rest = others;
    own.iter().cloned().collect()
}
