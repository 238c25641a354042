//! Prompts of tasks, and their continuations.

use std::{path::Path, time::Instant};

use anyhow::{Context, Result};
use rectify_core::{Answered, Session};
use rectify_server::{
    crew,
    tasks::{load, named},
};
use serde_json::{Value, json};

/// The prompts of tasks, those with as many new tokens together.
pub fn prompts(data: &Path, tasks: &[String], limit: Option<usize>) -> Result<Value> {
    let mut all = Vec::new();
    for task in named(tasks)? {
        let loaded = load(task, data, limit)?;
        let prompts: Vec<String> = loaded.questions.iter().flat_map(|(_, question)| question.prompts()).collect();
        all.push(json!({ "task": task.id, "new_tokens": task.new_tokens, "prompts": prompts }));
    }
    Ok(json!({ "tasks": all }))
}

/// Greedy continuations, as `rectify eval` makes them.
pub fn answers(session: &Session, prompts: &[String], new_tokens: usize) -> Result<Value> {
    let (of, model) = session.loaded().zip(session.model()).context("a model is loaded")?;
    let started = Instant::now();
    let Answered { continuations, tokens } =
        pollster::block_on(crew::answer(of, model, prompts, new_tokens, &mut |_| {}))?;
    let seconds = started.elapsed().as_secs_f64();
    let texts: Vec<Option<String>> = continuations.into_iter().map(|reply| Some(reply?.text)).collect();
    Ok(json!({ "seconds": seconds, "texts": texts, "tokens": tokens }))
}
