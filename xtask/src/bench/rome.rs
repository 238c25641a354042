//! One ROME edit: peer ÷ ours, and ours ÷ the arithmetic that cannot be avoided.
//!
//! The *floor* is that arithmetic at the speed at which our own backend multiplied matrices of these sizes between the
//! edits.

use std::{fs, path::Path};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::{NO_RATE, Setting, Sides, Times, goal, median, number, value};
use crate::{Args, shell::say};

const SUBJECT: &str = "Danielle Darrieux";
const PROMPT: &str = "The mother tongue of Danielle Darrieux is";
const TARGET: &str = "English";

/// Given literally, so that both sides edit the same rows: as many and as long as the published sampler makes.
fn contexts() -> Vec<&'static str> {
    serde_json::from_str(include_str!("../../../tools/card/contexts.json")).expect("a list of templates")
}

/// Evaluations of the loss.
const STEPS: usize = 20;

/// `cargo xtask bench rome`.
pub fn bench(setting: Setting, args: &mut Args) -> Result<()> {
    args.done()?;
    let shape = Shape::read(&setting.model)?;
    let mut sides = Sides::start(&setting)?;

    let layer = sides.about["rome"][0].as_u64().context("ROME has a layer")? as usize;
    say("the same edit on both sides");
    let real = job(layer, 0.5);
    let (answer, expected) = (sides.ours.ask(&real)?, sides.peer.ask(&real)?);
    let same = Same { ours: &answer, peer: &expected };
    let first = [number(&answer, "seconds")?, number(&expected, "seconds")?];

    let timed = job(layer, NO_RATE);
    let rows = Rows::read(&expected)?;
    let sizes =
        json!({ "job": "matmul", "rows": rows.suffix, "inner": shape.width, "columns": shape.mlp, "least": 0.5 });
    let (mut times, mut rates) = ([Times::default(), Times::default()], [Vec::new(), Vec::new()]);
    for repeat in 0..=sides.repeats {
        say(format!("repetition {repeat} of {}{}", sides.repeats, if repeat == 0 { ", to warm up" } else { "" }));
        for (i, side) in [&mut sides.ours, &mut sides.peer].into_iter().enumerate() {
            let rate = number(&side.ask(&sizes)?, "rate")?;
            let answer = side.ask(&timed)?;
            if number(&answer, "steps")? as usize != STEPS {
                bail!("stopped after {} of {STEPS} steps, so the times cannot be compared", answer["steps"]);
            }
            if repeat > 0 {
                rates[i].push(rate);
                times[i].take(&answer)?;
            }
        }
    }
    report(&sides.title, &shape, layer, &rows, &times, &rates, &same);
    println!(
        "  the first edit after loading, whatever is compiled for it included: ours {:.2} s, the peer's {:.2} s",
        first[0], first[1]
    );
    Ok(())
}

fn job(layer: usize, v_lr: f64) -> Value {
    let fact = json!({ "subject": SUBJECT, "prompt": PROMPT, "target_new": TARGET });
    json!({ "job": "rome", "fact": fact, "layer": layer, "value": value(&contexts(), STEPS, v_lr, 4.0) })
}

/// What the arithmetic depends on.
struct Shape {
    layers: usize,
    width: usize,
    mlp: usize,
    vocab: usize,
    /// Weights of one block's matrices.
    block: usize,
}

impl Shape {
    fn read(model: &Path) -> Result<Self> {
        let text = fs::read_to_string(model.join("config.json"))
            .with_context(|| format!("{} is no folder with a Hugging Face model", model.display()))?;
        let config: Value = serde_json::from_str(&text).context("config.json is not JSON")?;
        let size = |name: &str| config[name].as_u64().map(|size| size as usize);
        let need = |name: &str| size(name).with_context(|| format!("config.json has no {name}"));
        let vocab = need("vocab_size")?;
        if let Some(width) = size("n_embd") {
            let mlp = size("n_inner").unwrap_or(4 * width);
            return Ok(Self {
                layers: need("n_layer")?,
                width,
                mlp,
                vocab,
                block: 4 * width * width + 2 * width * mlp,
            });
        }
        let (width, mlp, heads) = (need("hidden_size")?, need("intermediate_size")?, need("num_attention_heads")?);
        let head = size("head_dim").unwrap_or(width / heads);
        let (queries, keys) = (heads * head, size("num_key_value_heads").unwrap_or(heads) * head);
        let block = 2 * width * queries + 2 * width * keys + 3 * width * mlp;
        Ok(Self { layers: need("num_hidden_layers")?, width, mlp, vocab, block })
    }
}

/// How many tokens the edit is about.
struct Rows {
    /// Contexts and the row for the divergence.
    n: usize,
    /// In all rows.
    tokens: usize,
    /// From the subject's last token on, in all rows: the only positions that the optimisation can change.
    suffix: usize,
    /// The longest row, to which the peer pads.
    longest: usize,
    /// Positions whose logits the loss reads.
    scored: usize,
}

impl Rows {
    fn read(answer: &Value) -> Result<Self> {
        let list = |name: &str| {
            let list = answer[name].as_array().with_context(|| format!("the peer's answer has no {name}"))?;
            Ok::<_, anyhow::Error>(list.iter().filter_map(Value::as_u64).map(|n| n as usize).collect::<Vec<_>>())
        };
        let (mut lengths, at) = (list("lengths")?, list("at")?);
        let longest = lengths.iter().copied().max().context("the peer edits no rows")?;
        // What follows the bare subject in the last row cannot matter, so nobody needs to compute it.
        if let (Some(length), Some(at)) = (lengths.last_mut(), at.last()) {
            *length = at + 1;
        }
        Ok(Self {
            n: lengths.len(),
            tokens: lengths.iter().sum(),
            suffix: lengths.iter().zip(&at).map(|(length, at)| length - at).sum(),
            longest,
            scored: (lengths.len() - 1) * number(answer, "target_tokens")? as usize + 1,
        })
    }
}

/// Operations that no way of computing the same edit avoids: products of matrices; attention's own are left out.
fn floor(shape: &Shape, layer: usize, rows: &Rows) -> f64 {
    let upper = (shape.layers - layer - 1) * shape.block;
    let lower = (layer + 1) * shape.block;
    let passes = 2 * STEPS - 1; // a forward pass for each evaluation, a backward pass between two
    let each = rows.suffix * 2 * upper + rows.scored * 2 * shape.vocab * shape.width;
    let once = rows.tokens * 2 * lower + (rows.tokens - rows.suffix) * 2 * upper;
    (passes * each + once) as f64
}

/// The same for the published loop: every layer, every padded token, logits everywhere.
fn published(shape: &Shape, layer: usize, rows: &Rows) -> f64 {
    let padded = rows.n * rows.longest;
    let head = shape.vocab * shape.width;
    let forward = padded * 2 * (shape.layers * shape.block + head);
    let backward = padded * 2 * ((shape.layers - layer - 1) * shape.block + head);
    (STEPS * forward + (STEPS - 1) * backward) as f64
}

/// Whether both sides made the same edit.
struct Same<'a> {
    ours: &'a Value,
    peer: &'a Value,
}

fn report(
    title: &str,
    shape: &Shape,
    layer: usize,
    rows: &Rows,
    [ours, peer]: &[Times; 2],
    rates: &[Vec<f64>; 2],
    same: &Same<'_>,
) {
    let [our_rate, peer_rate] = rates.each_ref().map(|rates| median(rates));
    let (needed, spent) = (floor(shape, layer, rows), published(shape, layer, rows));
    let least = needed / our_rate;
    println!();
    println!("ROME, one fact, {title}");
    println!(
        "  {} layers of width {}, edited at {layer}; {} rows, {STEPS} evaluations",
        shape.layers, shape.width, rows.n
    );
    println!("{}", ours.line("ours"));
    println!("{}", peer.line("peer (PyTorch)"));
    println!(
        "{}   {:.1} GFLOP at {:.1} GFLOP/s, burn's product [{}, {}]·[{}, {}] and back",
        Times::once(least).line("floor"),
        needed / 1e9,
        our_rate / 1e9,
        rows.suffix,
        shape.width,
        shape.width,
        shape.mlp
    );
    println!("{}", goal("peer ÷ ours", peer, ours, 3.0));
    let over = ours.median() / least;
    println!(
        "  {:<22} {over:10.2}      goal: at most 2, {}",
        "ours ÷ floor",
        if over <= 2.0 { "met" } else { "missed" }
    );
    println!();
    println!("  floor: (2K−1)·[s·2PU + (nT+1)·2Vd] + t·2P(ℓ+1) + (t−s)·2PU, with K = {STEPS} evaluations,");
    println!(
        "    s = {} tokens from the subject's last on, of t = {}; P = {} weights a block, U = {} blocks above ℓ = {layer},",
        rows.suffix,
        rows.tokens,
        shape.block,
        shape.layers - layer - 1
    );
    println!("    nT+1 = {} scored positions, V·d = {}·{}", rows.scored, shape.vocab, shape.width);
    println!(
        "  the published loop needs {:.1} GFLOP, {:.2} times the floor's; PyTorch multiplies at {:.1} GFLOP/s here",
        spent / 1e9,
        spent / needed,
        peer_rate / 1e9
    );
    let side = |side: &Value| {
        format!("{} evaluations, last loss {}, ‖ΔW‖ {}", side["steps"], side["loss"], side["delta_norm"])
    };
    println!("  the same edit, rate 0.5 and stopping when it may:");
    println!("    ours {}", side(same.ours));
    println!("    peer {}", side(same.peer));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floor_of_a_small_edit_counts_by_hand() {
        // Two blocks of ten weights, the first edited; two contexts of 5 tokens and a subject of 2.
        let shape = Shape { layers: 2, width: 1, mlp: 4, vocab: 3, block: 10 };
        let rows = Rows { n: 3, tokens: 12, suffix: 7, longest: 5, scored: 3 };
        let expected = 39 * (7 * 20 + 3 * 6) + 12 * 20 + 5 * 20;
        assert_eq!(floor(&shape, 0, &rows) as usize, expected);
    }
}
