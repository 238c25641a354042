//! Prompts of tasks, and their continuations.

use std::{path::Path, time::Instant};

use anyhow::{Context, Result};
use burn::tensor::Tensor;
use rectify_core::{
    Answered, Session,
    edit::{Delta, WeightDelta},
    model::{Matrix, Model, WeightSite},
};
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
    let model = session.model().context("a model is loaded")?.clone();
    let (seconds, mut answered) = timed(session, &[model], prompts, new_tokens)?;
    let texts = answered.continuations.remove(0).into_iter();
    let texts: Vec<Option<String>> = texts.map(|reply| Some(reply?.text)).collect();
    Ok(json!({ "seconds": seconds, "texts": texts, "tokens": answered.tokens }))
}

/// The same by `n` variants that differ in one layer, as a sweep asks them.
pub fn variants(session: &Session, prompts: &[String], new_tokens: usize, n: usize, layer: usize) -> Result<Value> {
    let model = session.model().context("a model is loaded")?;
    let site = WeightSite { layer, matrix: Matrix::MlpDown };
    let [d_mlp, d_model] = model.weight(site).dims();
    let variant = |i: usize| {
        let left = Tensor::ones([d_mlp, 1], session.device()) * (1e-6 * i as f64);
        let right = Tensor::ones([1, d_model], session.device());
        model.apply(&[WeightDelta { site, delta: Delta::LowRank { left, right } }])
    };
    let models = (0..n).map(variant).collect::<rectify_core::Result<Vec<Model>>>()?;
    let (seconds, _) = timed(session, &models, prompts, new_tokens)?;
    Ok(json!({ "seconds": seconds }))
}

fn timed(session: &Session, models: &[Model], prompts: &[String], new_tokens: usize) -> Result<(f64, Answered)> {
    let of = session.loaded().context("a model is loaded")?;
    let started = Instant::now();
    let answered = pollster::block_on(crew::answer(of, models, prompts, new_tokens, &mut |_| {}))?;
    Ok((started.elapsed().as_secs_f64(), answered))
}
