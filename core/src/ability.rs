//! How a session's model does on a sample of a task.

use std::slice;

use rectify_protocol::{Ability, Judgement, Progress, TaskScores, bounds, unknown};

use crate::{
    Answered, Batches, Error, Result,
    model::{LoadedModel, Model},
    task::{Records, judged},
};

/// The records of the task with this id, at most `limit` of them.
///
/// # Errors
///
/// When nobody has handed over such a task, or the limit is out of bounds.
pub(crate) fn sample(tasks: &[Records], id: &str, limit: usize) -> Result<Records> {
    bounds::within("records", limit, 1..=bounds::RECORDS)?;
    if tasks.is_empty() {
        return Err(Error::bad_input("there are no tasks to ask this model: models.json names no world for it"));
    }
    let ids: Vec<&str> = tasks.iter().map(|records| records.task.id).collect();
    let found = tasks.iter().find(|records| records.task.id == id);
    Ok(found.ok_or_else(|| Error::bad_input(unknown("task", id, &ids)))?.sample(limit))
}

/// Asks every record of a model that carries so many edits.
pub(crate) async fn evaluate(
    of: &LoadedModel,
    model: &Model,
    edits: usize,
    records: &Records,
    watch: &mut dyn FnMut(Progress),
) -> Result<Ability> {
    let prompts = prompts(records);
    let answered = answer(of, slice::from_ref(model), &prompts, records, watch).await?;
    let items = records.items(&answered.continuations.concat());
    let judgements = || items.iter().map(|item| &item.judgement);
    Ok(Ability {
        task: records.task.id.to_owned(),
        name: records.task.name.to_owned(),
        edits,
        of: records.of,
        scores: TaskScores::of(judgements()),
        error: TaskScores::error(judgements()),
        items,
    })
}

/// How variants of a model answer the records: of each, by the records' order.
pub(crate) async fn judge(
    of: &LoadedModel,
    models: &[Model],
    records: &Records,
    watch: &mut dyn FnMut(Progress),
) -> Result<Vec<Vec<Option<Judgement>>>> {
    let questions = records.asked();
    let answered = answer(of, models, &prompts(records), records, watch).await?;
    Ok(answered.continuations.iter().map(|continuations| judged(&questions, continuations)).collect())
}

fn prompts(records: &Records) -> Vec<String> {
    records.asked().iter().flat_map(|question| question.prompts()).collect()
}

/// As [`crate::answer`], in small batches: whoever wants something else of the session waits for one of them.
async fn answer(
    of: &LoadedModel,
    models: &[Model],
    prompts: &[String],
    records: &Records,
    watch: &mut dyn FnMut(Progress),
) -> Result<Answered> {
    /// As many as would be answered at once on so many processors.
    const PARTS: usize = 8;
    let batches = Batches::new(of, models, prompts, records.task.new_tokens, PARTS)?;
    let mut replies = Vec::with_capacity(models.len() * prompts.len());
    for batch in 0..batches.count() {
        replies.extend(batches.answer(batch).await?);
        let (task, done) = (records.task.id.to_owned(), batches.done(&replies));
        watch(Progress::Asking { task, done, total: prompts.len() });
    }
    batches.finish(replies, &of.tokenizer)
}
