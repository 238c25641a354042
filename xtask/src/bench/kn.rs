//! Where a fact is kept, by KN: the published gradients, layer by layer and step by step, ÷ ours.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::{Setting, Sides, count, goal};
use crate::{
    Args,
    shell::{root, say},
};

const STEPS: usize = 20;
const THRESHOLD: f64 = 0.2;

/// `cargo xtask bench kn`.
pub fn bench(setting: Setting, args: &mut Args) -> Result<()> {
    let n = count(args, "--facts")?.unwrap_or(3).max(1);
    let demo = || root().join("static/facts/demo_zsre.json");
    let from = args.value("--from")?.map_or_else(demo, PathBuf::from);
    args.done()?;
    let mut sides = Sides::start(&setting)?;
    let facts = sides.ours.ask(&json!({ "job": "facts", "file": from, "n": n }))?["facts"].take();
    let job = |fact: &Value| {
        json!({
            "job": "kn", "fact": fact, "prompt": fact["prompt"], "ground_truth": fact["target_true"],
            "spec": { "steps": STEPS, "batch_size": STEPS, "adaptive_threshold": THRESHOLD },
            "steps": STEPS, "batch_size": STEPS, "adaptive_threshold": THRESHOLD,
        })
    };
    let facts: Vec<Value> = facts.as_array().context("facts are a list")?.iter().map(job).collect();

    say("the same neurons on both sides");
    let mut found = Vec::new();
    let mut differ = false;
    for fact in &facts {
        let (ours, peer) = (sides.ours.ask(fact)?, sides.peer.ask(fact)?);
        let list = |answer: &Value| answer["neurons"].as_array().cloned().unwrap_or_default();
        let (ours, peer) = (list(&ours), list(&peer));
        let common = ours.iter().filter(|neuron| peer.contains(neuron)).count();
        differ |= ours.len() != peer.len() || common != peer.len();
        found.push(format!("{} of ours, {} of the peer's, {common} in both", ours.len(), peer.len()));
    }
    let (ours, peer) = sides.time(&facts[0])?;

    println!();
    println!("KN, one fact, {}", sides.title);
    println!(
        "  {} layers, {STEPS} steps each, 32-bit floats; ours includes planning the change",
        sides.about["layers"]
    );
    println!("{}", ours.line("ours"));
    println!("{}", peer.line("peer (PyTorch)"));
    println!("{}", goal("peer ÷ ours", &peer, &ours, 10.0));
    println!("  neurons chosen for {n} facts:");
    found.iter().for_each(|line| println!("    {line}"));
    if differ {
        bail!("the sides chose different neurons, so their times cannot be compared");
    }
    Ok(())
}
