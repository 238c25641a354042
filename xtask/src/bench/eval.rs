//! Answering the tasks' prompts: transformers in batches of about equal length ÷ ours, and the published way, one
//! prompt at a time padded to the context, ÷ ours.

use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{Setting, Sides, Times, count, goal, number};
use crate::{
    Args,
    shell::{root, say},
};

/// Padded tokens of the peer's batches: it takes the size with which it is fastest. We choose our own.
const BATCHES: [usize; 3] = [4096, 1024, 512];

/// Variants of a model that a sweep asks together: one for each regularizer of the paper's Figure 7.
const VARIANTS: usize = 8;

/// What the published scripts pad to, where the context holds as many.
const PADDED: usize = 1024;

/// `cargo xtask bench eval`.
#[allow(clippy::too_many_lines, reason = "a measurement from its question to its table")]
pub fn bench(setting: Setting, args: &mut Args) -> Result<()> {
    let data = args.value("--data")?.map_or_else(|| root().join("static/tasks/demo"), PathBuf::from);
    let tasks = args.value("--tasks")?.unwrap_or_else(|| "all".into());
    let limit = count(args, "--limit")?;
    let slow_items = count(args, "--slow-items")?.unwrap_or(8).max(1);
    args.done()?;
    let mut sides = Sides::start(&setting)?;
    let tasks: Vec<&str> = tasks.split(',').collect();
    let asked = sides.ours.ask(&json!({ "job": "prompts", "data": data, "tasks": tasks, "limit": limit }))?;
    let width = sides.shape("context")?.min(PADDED);
    let layers = sides.shape("layers")?;
    let layer = sides.about["rome"][0].as_u64().context("ROME has a layer")? as usize;

    let (mut all_ours, mut all_peer, mut all_slow) = (Vec::new(), Vec::new(), Vec::new());
    let mut by_variants = [0.0; 2];
    let mut lines = Vec::new();
    for task in asked["tasks"].as_array().context("tasks are a list")? {
        let name = task["task"].as_str().unwrap_or_default();
        say(name);
        let prompts = task["prompts"].as_array().context("prompts are a list")?;
        let new_tokens = number(task, "new_tokens")? as usize;
        let job =
            |batch: usize| json!({ "job": "answer", "prompts": prompts, "new_tokens": new_tokens, "batch": batch });
        sides.peer.ask(&job(BATCHES[0]))?; // The first is slow, whatever its size.
        let mut tried = Vec::with_capacity(BATCHES.len());
        for batch in BATCHES {
            let expected = sides.peer.ask(&job(batch))?;
            tried.push((number(&expected, "seconds")?, batch, expected));
        }
        let (_, batch, expected) = tried.into_iter().min_by(|a, b| a.0.total_cmp(&b.0)).context("a size was tried")?;
        let differing = differing(&sides.ours.ask(&job(batch))?, &expected);
        let (ours, peer) = sides.time(&job(batch))?;

        for (n, seconds) in [1, VARIANTS].into_iter().zip(&mut by_variants) {
            let job =
                json!({ "job": "variants", "prompts": prompts, "new_tokens": new_tokens, "n": n, "layer": layer });
            *seconds += number(&sides.ours.ask(&job)?, "seconds")?;
        }

        let few: Vec<&Value> = prompts.iter().step_by(prompts.len().div_ceil(slow_items)).collect();
        let slow = json!({ "job": "answer_one_by_one", "prompts": few, "new_tokens": new_tokens, "width": width });
        let slow = sides.peer.ask(&slow)?;
        let scale = prompts.len() as f64 / few.len() as f64;
        let mut one_by_one = Times::default();
        one_by_one.push(number(&slow, "seconds")? * scale, number(&slow, "processor").unwrap_or(f64::NAN) * scale);

        lines.push(format!(
            "{name}: {} prompts, up to {new_tokens} tokens each; {} of {} continuations are identical",
            prompts.len(),
            prompts.len() - differing.len(),
            prompts.len()
        ));
        for (row, [ours, peer]) in differing.iter().take(3) {
            lines.push(format!("    prompt {row}: ours {ours:?}, the peer's {peer:?}"));
        }
        lines.push(ours.line("ours"));
        lines.push(peer.line("transformers, batched") + &format!("; at most {batch} tokens a batch, its fastest"));
        lines.push(one_by_one.line("one by one, padded") + &format!("; scaled from {} prompts", few.len()));
        lines.push(format!("  {:<22} {:10.2}", "batched ÷ ours", peer.median() / ours.median()));
        lines.push(format!("  {:<22} {:10.2}", "one by one ÷ ours", one_by_one.median() / ours.median()));
        all_ours.push(ours);
        all_peer.push(peer);
        all_slow.push(one_by_one);
    }
    let sum = |all: &[Times]| {
        let mut sum = Times::default();
        for i in 0..all.first().map_or(0, |times| times.clock.len()) {
            sum.push(all.iter().map(|times| times.clock[i]).sum(), all.iter().map(|times| times.processor[i]).sum());
        }
        sum
    };
    let [ours, peer, slow] = [all_ours, all_peer, all_slow].map(|all| sum(&all));
    println!();
    println!("Answering tasks, {}", sides.title);
    println!("  the published way pads to {width} tokens");
    lines.iter().for_each(|line| println!("{line}"));
    println!("all of them");
    println!("{}", ours.line("ours"));
    println!("{}", peer.line("transformers, batched"));
    println!("{}; scaled", slow.line("one by one, padded"));
    println!("{}", goal("batched ÷ ours", &peer, &ours, 1.0));
    println!("{}", goal("one by one ÷ ours", &slow, &ours, 10.0));
    let [one, all] = by_variants;
    println!(
        "  one more of {VARIANTS} variants that differ in layer {layer} of {layers}, ÷ the first: {:.2}; its own \
         share of the blocks is {:.2}",
        (all - one) / (VARIANTS - 1) as f64 / one,
        (layers - layer) as f64 / layers as f64
    );
    Ok(())
}

/// The prompts whose continuations differ, with the first words of both.
fn differing(ours: &Value, peer: &Value) -> Vec<(usize, [String; 2])> {
    let texts = |answer: &Value| answer["texts"].as_array().cloned().unwrap_or_default();
    let start = |text: &Value| text.as_str().map_or_else(|| "nothing".into(), |text| text.chars().take(24).collect());
    texts(ours)
        .iter()
        .zip(texts(peer))
        .enumerate()
        .filter(|(_, (ours, peer))| **ours != *peer)
        .map(|(row, (ours, peer))| (row, [start(ours), start(&peer)]))
        .collect()
}
