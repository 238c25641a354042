//! A real model, where there is one: `RECTIFY_REAL_MODEL` names a folder with SmolLM2-135M in the Hugging Face layout,
//! `RECTIFY_REAL_TEXT` the validation text of WikiText-2. Too large to ship, so these are skipped without them.

use std::{env, fs, path::Path};

use rectify_core::{
    Session,
    model::{Description, Loader},
};
use rectify_protocol::{Command, Event};

fn session(folder: &Path) -> Session {
    let read = |name: &str| fs::read(folder.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    let mut session = Session::new(crate::golden::device(), "flex", || 0.0);
    let mut loader =
        Loader::new(&Description::new(&read("config.json"), &read("tokenizer.json")), session.device()).expect("reads");
    loader.add_shard("model.safetensors", &read("model.safetensors")).expect("reads");
    session.open(loader.finish("real").expect("complete"));
    session
}

#[test]
fn a_real_model_knows_a_capital_and_reads_as_well_as_the_reference_says() {
    let (Some(folder), Some(text)) = (env::var_os("RECTIFY_REAL_MODEL"), env::var_os("RECTIFY_REAL_TEXT")) else {
        eprintln!("SKIPPED: RECTIFY_REAL_MODEL and RECTIFY_REAL_TEXT name no model and text");
        return;
    };
    let mut session = session(Path::new(&folder));
    let ask = Command::Ask { prompt: "The capital of France is".into(), tokens: 4, top: 1 };
    let Event::Answered(answer) = pollster::block_on(session.handle(ask, &mut |_| {})).expect("answers") else {
        panic!("an answer")
    };
    assert_eq!(answer.top[0].0, " Paris");
    let text = fs::read_to_string(text).expect("reads");
    let perplexity = pollster::block_on(session.perplexity(&text, 512, 16)).expect("reads");
    eprintln!("perplexity {perplexity:.3}");
    assert!((perplexity / 19.75 - 1.0).abs() < 0.01, "{perplexity}");
}
