//! MEMIT's linear algebra, one layer: a direct solution in f64 ÷ ours through the cached factor.

use anyhow::{Context, Result, bail};
use serde_json::json;

use super::{Setting, Sides, Times, difference, goal, number, numbers};
use crate::{Args, shell::say};

const FACTS: [usize; 3] = [1, 4, 16];
const LAMBDA: f64 = 20_000.0;

/// Lengths of keys, and the width of the models that have them: SmolLM2-135M, GPT-2 small, GPT-2 XL.
const SIZES: [[usize; 2]; 3] = [[1536, 576], [3072, 768], [6400, 1600]];

/// `cargo xtask bench linalg`.
pub fn bench(setting: Setting, args: &mut Args) -> Result<()> {
    let only: Option<Vec<usize>> = args
        .value("--sizes")?
        .map(|sizes| sizes.split(',').map(str::parse).collect::<Result<_, _>>())
        .transpose()
        .context("--sizes takes numbers with commas between")?;
    args.done()?;
    let mut sides = Sides::start(&setting)?;
    let own = [sides.shape("d_mlp")?, sides.shape("d_model")?];
    let mut sizes: Vec<[usize; 2]> = [own].into_iter().chain(SIZES).collect();
    if let Some(only) = only {
        sizes = only.iter().map(|d_mlp| [*d_mlp, *d_mlp / 4]).collect();
    }
    sizes.sort_unstable();
    sizes.dedup();

    let mut lines = Vec::new();
    for [d_mlp, d_model] in sizes {
        say(format!("keys of length {d_mlp}"));
        let file = sides.folder.join(format!("system-{d_mlp}.safetensors"));
        let most = FACTS[FACTS.len() - 1];
        let system = json!({ "job": "system", "d_mlp": d_mlp, "d_model": d_model, "facts": most, "file": file });
        let factoring = number(&sides.ours.ask(&system)?, "seconds")?;
        lines.push(format!("keys of length {d_mlp}, factored once in {factoring:.3} s"));
        for facts in FACTS {
            let ask = |direct: bool, least: f64| {
                json!({
                    "job": "solve", "file": file, "facts": facts, "lambda": LAMBDA, "direct": direct, "least": least,
                })
            };
            let [mut ours, mut peer, mut own] = [Times::default(), Times::default(), Times::default()];
            let mut off = 0.0_f64;
            let repeats = if d_mlp > 4000 { sides.repeats.min(3) } else { sides.repeats };
            for repeat in 0..=repeats {
                if repeat == 0 && d_mlp > 4000 && facts > 1 {
                    continue; // Warm already, and long.
                }
                let answer = sides.ours.ask(&ask(false, 0.1))?;
                let expected = sides.peer.ask(&ask(true, 0.0))?;
                off = off.max(difference(&numbers(&answer, "sums")?, &numbers(&expected, "sums")?));
                if repeat > 0 {
                    ours.take(&answer)?;
                    peer.take(&expected)?;
                }
            }
            own.take(&sides.ours.ask(&ask(true, 0.0))?)?;
            if off.is_nan() || off > 1e-6 {
                bail!("the solutions for {facts} facts differ by {off:.1e}");
            }
            lines.push(format!(" {facts} facts; the solutions differ by {off:.1e}"));
            lines.push(ours.line("ours, by the factor"));
            lines.push(peer.line("peer, direct"));
            lines.push(own.line("ours, direct"));
            lines.push(goal("peer ÷ ours", &peer, &ours, 20.0));
        }
    }
    println!();
    println!("MEMIT's system in f64, one layer, {}", sides.title);
    lines.iter().for_each(|line| println!("{line}"));
    Ok(())
}
