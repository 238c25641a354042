//! Many facts by MEMIT: peer ÷ ours.
//!
//! The published loop looks for one value after the other, pads seven rows and runs them through every layer with
//! logits everywhere, reads keys by a full forward pass for each layer, and solves a system of a key's size in f64.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::{NO_RATE, SIX_CONTEXTS, Setting, Sides, Times, count, difference, goal, number, numbers, value};
use crate::{
    Args,
    shell::{root, say},
};

/// Facts of the edit that is made to its end on both sides.
const CHECKED: usize = 4;

/// λ, as published for GPT-2 XL.
const LAMBDA: f64 = 20_000.0;

/// The whole edit should not keep the peer longer than this.
const PATIENCE: f64 = 180.0;

/// `cargo xtask bench memit`.
#[allow(clippy::too_many_lines, reason = "a measurement from its question to its table")]
pub fn bench(setting: Setting, args: &mut Args) -> Result<()> {
    let n = count(args, "--facts")?.unwrap_or(100);
    let asked = count(args, "--peer-facts")?;
    let steps = count(args, "--steps")?.unwrap_or(20);
    let demo = || root().join("static/facts/demo_counterfact_train.json");
    let from = args.value("--from")?.map_or_else(demo, PathBuf::from);
    args.done()?;
    let mut sides = Sides::start(&setting)?;
    let facts = sides.ours.ask(&json!({ "job": "facts", "file": from, "n": n.max(CHECKED) }))?["facts"].take();
    let facts = facts.as_array().context("facts are a list")?;
    let layers = sides.about["memit"].clone();
    let d_mlp = sides.shape("d_mlp")?;

    say("second moments of the keys, for both sides");
    let moments = sides.ours.ask(&json!({
        "job": "moments", "texts": root().join("static/tasks/demo"), "tokens": 20 * d_mlp, "layers": layers,
        "folder": sides.folder,
    }))?;
    let job = |facts: &[Value], values: usize, v_lr: f64, tell_values: bool| {
        json!({
            "job": "memit", "facts": facts, "values": values, "layers": layers, "lambda": LAMBDA,
            "value": value(SIX_CONTEXTS, steps, v_lr, 0.75), "moments": moments["moments"],
            "tell_values": tell_values,
        })
    };

    say("the same edit on both sides");
    let real = job(&facts[..CHECKED], CHECKED, 0.5, true);
    let (ours, peer) = (sides.ours.ask(&real)?, sides.peer.ask(&real)?);
    let off_values = difference(&numbers(&ours, "values")?, &numbers(&peer, "values")?);
    let off_norms = difference(&numbers(&ours, "delta_norms")?, &numbers(&peer, "delta_norms")?);

    // So many facts as the peer does in time have their value looked for by it; the rest of the edit is for all.
    let each = number(&sides.peer.ask(&job(&facts[..1], 1, NO_RATE, false))?, "seconds_values")?;
    let fitting = ((PATIENCE / each / (setting.repeats + 1) as f64) as usize).clamp(1, n);
    let values = asked.unwrap_or(if each * n as f64 > PATIENCE { fitting } else { n }).clamp(1, n);
    let timed = job(&facts[..n], values, NO_RATE, false);
    let (mut ours, mut peer, mut solving) = (Times::default(), Times::default(), Times::default());
    for repeat in 0..=sides.repeats {
        say(format!("repetition {repeat} of {}{}", sides.repeats, if repeat == 0 { ", to warm up" } else { "" }));
        let answer = sides.ours.ask(&timed)?;
        let expected = sides.peer.ask(&timed)?;
        for (answer, n) in [(&answer, n), (&expected, values)] {
            if number(answer, "steps")? as usize != steps * n {
                bail!("{} of {} steps were run, so the times cannot be compared", answer["steps"], steps * n);
            }
        }
        if repeat > 0 {
            ours.take(&answer)?;
            let (seconds, found) = (number(&expected, "seconds")?, number(&expected, "seconds_values")?);
            let scaled = seconds - found + found * n as f64 / values as f64;
            let share = number(&expected, "processor").unwrap_or(f64::NAN) / seconds;
            peer.push(scaled, scaled * share);
            solving.push(number(&expected, "seconds_solving")?, f64::NAN);
        }
    }

    println!();
    println!("MEMIT, {n} facts, {}", sides.title);
    println!("  layers {layers}, {steps} evaluations of {} rows each fact, 32-bit floats", SIX_CONTEXTS.len() + 1);
    println!("{}", ours.line("ours"));
    println!("{}", peer.line("peer (PyTorch)"));
    println!("{}", solving.line("  of that, solving"));
    if values < n {
        println!("  the peer looked for the values of {values} facts; that part of its time is scaled to {n}");
    }
    println!("{}", goal("peer ÷ ours", &peer, &ours, 3.5));
    println!("  the warm-up factors each layer's second moment, once for all later edits");
    println!("  the same edit of {CHECKED} facts, rate 0.5 and stopping when they may:");
    println!("    values differ by {off_values:.1e}, norms of ΔW by {off_norms:.1e}");
    same(off_values, 1e-2)?;
    same(off_norms, 1e-2)
}

/// Complains about sides that do not agree.
fn same(difference: f64, most: f64) -> Result<()> {
    if difference.is_nan() || difference > most {
        bail!("the sides differ by {difference:.1e}, so their times cannot be compared");
    }
    Ok(())
}
