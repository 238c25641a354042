//! What a real model answers to real records of the eight tasks, beside what transformers answers.
//!
//! `RECTIFY_REAL_MODEL` names a folder with SmolLM2-135M in the Hugging Face layout, `RECTIFY_REAL_DATA` one with the
//! tasks' files (`rectify data list`). Neither may be shipped, so this is skipped without them.

use std::{env, fs, path::Path};

use burn::tensor::Device;
use rectify_core::model::{Description, Loader};
use rectify_server::{crew, tasks};
use serde::Deserialize;
use sha2::{Digest, Sha256};

/// `tests/golden/smollm2-135m/answers.json`, which `tools/peer/golden_answers.py` wrote.
#[derive(Deserialize)]
struct Golden {
    model: String,
    records: usize,
    tasks: std::collections::BTreeMap<String, Vec<Expected>>,
}

#[derive(Deserialize)]
struct Expected {
    /// SHA-256 of the prompt.
    prompt: String,
    /// SHA-256 of the answer; absent where prompt and answer do not fit the context.
    answer: Option<String>,
    /// The smallest distance between the two largest logits on the way.
    gap: Option<f64>,
}

/// Logits agree to about 2e-4 between the two programs: where the largest two are nearer, either may win.
const TIE: f64 = 1e-3;

#[test]
fn a_real_model_answers_the_tasks_as_transformers_does() {
    let (Some(folder), Some(data)) = (env::var_os("RECTIFY_REAL_MODEL"), env::var_os("RECTIFY_REAL_DATA")) else {
        eprintln!("SKIPPED: RECTIFY_REAL_MODEL and RECTIFY_REAL_DATA name no model and tasks");
        return;
    };
    let golden: Golden =
        serde_json::from_str(include_str!("golden/smollm2-135m/answers.json")).expect("answers.json is JSON");
    let read = |name: &str| fs::read(Path::new(&folder).join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    let shard = read("model.safetensors");
    assert_eq!(hash(&shard), golden.model, "another model");
    let mut loader =
        Loader::new(&Description::new(&read("config.json"), &read("tokenizer.json")), &Device::flex()).expect("reads");
    loader.add_shard("model.safetensors", &shard).expect("reads");
    let of = loader.finish("real").expect("complete");

    let all = tasks::named(&["all".to_owned()]).expect("all tasks");
    assert_eq!(all.len(), golden.tasks.len());
    let (mut compared, mut wrong) = (0, Vec::new());
    for task in all {
        let loaded = tasks::load(task, Path::new(&data), Some(golden.records)).expect("a file of the task");
        let prompts: Vec<String> = loaded.questions.iter().flat_map(|(_, question)| question.prompts()).collect();
        let expected = &golden.tasks[task.id];
        assert_eq!(prompts.len(), expected.len(), "{}", task.id);
        let mut silent = |_| {};
        let answered = crew::answer(&of, std::slice::from_ref(&of.model), &prompts, task.new_tokens, &mut silent);
        let answered = pollster::block_on(answered).expect("answers").continuations.remove(0);
        for (i, ((prompt, reply), expected)) in prompts.iter().zip(answered).zip(expected).enumerate() {
            assert_eq!(hash(prompt.as_bytes()), expected.prompt, "{} {i}: another prompt, or other data", task.id);
            let text = reply.map(|reply| reply.text);
            compared += 1;
            if text.as_ref().map(|text| hash(text.as_bytes())) == expected.answer {
                continue;
            }
            let line = format!("{} {i}: ours {text:?}, nearest logits {:?}", task.id, expected.gap);
            if expected.gap.is_some_and(|gap| gap < TIE) { eprintln!("TIE {line}") } else { wrong.push(line) }
        }
    }
    assert!(wrong.is_empty(), "of {compared} answers these differ:\n{}", wrong.join("\n"));
    eprintln!("{compared} answers compared");
}

fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
