//! RECT's selection: numpy's partition, as published, ÷ ours; and ours ÷ one copy of the matrix.

use anyhow::{Result, bail};
use serde_json::json;

use super::{Setting, Sides, Times, goal, number};
use crate::{Args, shell::say};

const KEEP: f64 = 0.4;

/// `cargo xtask bench rect`.
pub fn bench(setting: Setting, args: &mut Args) -> Result<()> {
    let large = args.flag("--large");
    args.done()?;
    let mut sides = Sides::start(&setting)?;
    let layer = sides.about["rome"][0].clone();
    let mut cases = vec![json!({ "rows": 0, "columns": 0, "layer": layer }), json!({ "rows": 6400, "columns": 1600 })];
    if large {
        cases.push(json!({ "rows": 11008, "columns": 4096 }));
    }
    let mut lines = Vec::new();
    for mut case in cases {
        case["job"] = "matrices".into();
        let file = sides.folder.join(format!("matrices-{}.safetensors", lines.len()));
        case["file"] = json!(file);
        let of_model = !case["layer"].is_null();
        let sizes = sides.ours.ask(&case)?;
        let (rows, columns) = (number(&sizes, "rows")? as usize, number(&sizes, "columns")? as usize);
        let whose = if of_model { ", the model's" } else { ", random" };
        say(format!("{rows} x {columns}{whose}"));

        let save = sides.folder.join(format!("kept-{rows}-{columns}.safetensors"));
        let rect = |least: f64| json!({ "job": "rect", "file": file, "keep": KEEP, "least": least, "compare": null });
        let (mut first, mut compared) = (rect(0.0), rect(0.0));
        first["save"] = json!(save);
        compared["compare"] = json!(save);
        let (ours, same) = (sides.ours.ask(&first)?, sides.peer.ask(&compared)?);
        let (survivors, expected) = (number(&ours, "survivors")?, number(&same, "survivors")?);
        if survivors != expected || number(&same, "differing_untied")? > 0.0 || same["same_values"] != true {
            bail!("the sides keep different entries: {survivors} and {same}");
        }

        let [mut ours, mut peer, mut copy] = [Times::default(), Times::default(), Times::default()];
        for repeat in 0..=sides.repeats {
            let answer = sides.ours.ask(&rect(0.2))?;
            let expected = sides.peer.ask(&rect(0.2))?;
            if repeat > 0 {
                ours.take(&answer)?;
                peer.take(&expected)?;
                copy.push(number(&answer, "copy")?, f64::NAN);
            }
        }
        lines.push(format!(
            "{rows} x {columns}{whose}: {survivors} entries survive on both sides; {} ties at the threshold were broken \
             differently",
            same["differing"]
        ));
        lines.push(ours.line("ours"));
        lines.push(peer.line("peer (numpy)"));
        lines.push(copy.line("one copy"));
        lines.push(goal("peer ÷ ours", &peer, &ours, 3.0));
        lines.push(format!("  {:<22} {:10.2}", "ours ÷ copy", ours.median() / copy.median()));
    }
    println!();
    println!("RECT, keeping {KEEP}, {}", sides.title);
    lines.iter().for_each(|line| println!("{line}"));
    Ok(())
}
