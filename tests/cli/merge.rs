//! `rectify models merge`, `rectify delta`, and facts without a file.

use std::{
    fs,
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde_json::{Value, json};

use crate::desk::{Desk, PROMPT, check_refused, document, fact, golden};

/// What a model says, unrounded.
fn top(model: &str, more: &[&str]) -> Value {
    document(&[&["ask", "--model", model, "--prompt", PROMPT, "--json"], more].concat())["top"].clone()
}

#[test]
fn a_merged_model_answers_as_the_edit_does() {
    for name in ["gpt2-tiny", "llama-tiny"] {
        let (desk, model) = (Desk::new(&json!([fact()])), golden(name));
        let (edits, merged) = (desk.text("edits"), desk.text("merged"));
        document(&desk.edit(&model, &desk.contexts(), &["--out", &edits, "--json"]));
        let merge = ["models", "merge", "--model", &model, "--edits", &edits, "--out", &merged, "--json"];
        let written = document(&merge);
        assert_eq!((&written["out"], &written["tensors"][0]["dtype"]), (&json!(merged), &json!("F32")), "{written}");
        assert_ne!(top(&model, &[]), top(&merged, &[]));
        assert_eq!(top(&model, &["--edits", &edits]), top(&merged, &[]), "{name}: bit for bit");
        let card = fs::read_to_string(desk.path("merged/README.md")).expect("a model card");
        for part in ["base_model:", PROMPT, "\"method\": \"rome\"", "reliability: "] {
            assert!(card.contains(part), "{card}\nlacks {part:?}");
        }

        // The way back: what differs is the edit.
        let back = desk.text("back");
        let found = document(&["delta", &model, &merged, "--out", &back, "--json"]);
        assert_eq!((found.as_array().map(Vec::len), &found[0]["rank"]), (Some(1), &json!(1)), "{found}");
        assert_eq!(top(&model, &["--edits", &back]), top(&merged, &[]), "{name}: bit for bit");
        check_refused(&["delta", &model, &model, "--out", &desk.text("none")], &["have the same weights"]);
        let other = golden(if name == "gpt2-tiny" { "llama-tiny" } else { "gpt2-tiny" });
        check_refused(&["delta", &model, &other, "--out", &desk.text("none")], &["are of different architectures"]);
    }
}

/// PEFT adds `lora_B · lora_A`, transposed where `fan_in_fan_out` says so.
#[test]
fn an_adapter_s_factors_are_the_edit() {
    for (name, module) in [("gpt2-tiny", "transformer.h.1.mlp.c_proj"), ("llama-tiny", "model.layers.1.mlp.down_proj")]
    {
        let (desk, model) = (Desk::new(&json!([fact()])), golden(name));
        let (edits, adapter) = (desk.text("edits"), desk.text("adapter"));
        document(&desk.edit(&model, &desk.contexts(), &["--out", &edits, "--json"]));
        let merge = ["models", "merge", "--model", &model, "--edits", &edits, "--format", "lora", "--out", &adapter];
        let written = document(&[&merge[..], &["--json"]].concat());
        assert_eq!((&written["modules"][0]["module"], &written["modules"][0]["rank"]), (&json!(module), &json!(1)));
        let config: Value =
            serde_json::from_slice(&fs::read(desk.path("adapter/adapter_config.json")).expect("reads")).expect("JSON");
        assert_eq!(config["target_modules"], json!([module]));
        assert_eq!((&config["r"], &config["lora_alpha"]), (&json!(1), &json!(1)));
        assert_eq!(config["fan_in_fan_out"], name.starts_with("gpt2"));

        let (a_shape, a) = tensor(&desk.path("adapter/adapter_model.safetensors"), "lora_A.weight");
        let (b_shape, b) = tensor(&desk.path("adapter/adapter_model.safetensors"), "lora_B.weight");
        let (shape, change) = tensor(&desk.path("edits/delta.safetensors"), ".weight");
        let [outputs, inputs] = [b_shape[0], a_shape[1]];
        assert_eq!((a_shape[0], b_shape[1]), (1, 1));
        let stored = |i: usize, o: usize| if name.starts_with("gpt2") { i * shape[1] + o } else { o * shape[1] + i };
        let largest = change.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
        for i in 0..inputs {
            for o in 0..outputs {
                let (product, expected) = (b[o] * a[i], change[stored(i, o)]);
                assert!((product - expected).abs() < 1e-4 * largest, "{name} {i} {o}: {product} and {expected}");
            }
        }
    }
}

/// The only tensor of a file whose name ends so, as its shape and its numbers.
fn tensor(path: &Path, ending: &str) -> (Vec<usize>, Vec<f32>) {
    let bytes = fs::read(path).expect("reads");
    let tensors = SafeTensors::deserialize(&bytes).expect("safetensors");
    let found: Vec<_> = tensors.tensors().into_iter().filter(|(name, _)| name.ends_with(ending)).collect();
    let [(_, view)] = &found[..] else { panic!("{} tensors end in {ending}", found.len()) };
    let values = view.data().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    (view.shape().to_vec(), values)
}

#[test]
fn what_cannot_be_merged_is_refused_and_nothing_is_written() {
    let (desk, model) = (Desk::new(&json!([fact()])), golden("gpt2-tiny"));
    let (edits, out) = (desk.text("edits"), desk.text("out"));
    document(&desk.edit(&model, &desk.contexts(), &["--out", &edits, "--json"]));
    let merge = |model: &str, edits: &str, more: &[&str]| {
        let args: Vec<String> = ["models", "merge", "--model", model, "--edits", edits, "--out", &out]
            .iter()
            .chain(more)
            .map(|arg| (*arg).to_owned())
            .collect();
        args
    };
    let refused = |args: Vec<String>, parts: &[&str]| {
        check_refused(&args.iter().map(String::as_str).collect::<Vec<_>>(), parts);
        assert!(!desk.path("out").exists());
    };
    refused(merge(&golden("llama-tiny"), &edits, &[]), &["changes the model with hash"]);
    refused(merge(&golden("llama-tiny"), &edits, &["--format", "lora"]), &["changes the model with hash"]);
    refused(merge(&model, &edits, &["--rank", "3"]), &["--rank is for --format lora"]);
    refused(merge(&model, &desk.text("nowhere"), &[]), &["nowhere"]);
    // An adapter has no room for what the model does not.
    let delta = |name: &str, tensors: &[(&str, [usize; 2])]| {
        let zeros = vec![0; 1 << 16];
        let view = |shape: [usize; 2]| TensorView::new(Dtype::F32, shape.to_vec(), &zeros[..4 * shape[0] * shape[1]]);
        let views = tensors.iter().map(|(name, shape)| (*name, view(*shape).expect("a view")));
        safetensors::serialize_to_file(views, None, &desk.path(name)).expect("writes");
        desk.text(name)
    };
    let lora = ["--format", "lora"];
    refused(
        merge(&model, &delta("a.safetensors", &[("elsewhere.weight", [2, 2])]), &lora),
        &["has no tensor \"elsewhere"],
    );
    let shape = tensor(&desk.path("edits/delta.safetensors"), ".weight").0;
    let edited = "transformer.h.1.mlp.c_proj.weight";
    refused(merge(&model, &delta("b.safetensors", &[(edited, [1, shape[1]])]), &lora), &["but its change is [1, "]);
    let embedding = ("transformer.wpe.weight", [2, 2]);
    refused(merge(&model, &delta("c.safetensors", &[embedding]), &[]), &["but its change is [2, 2]"]);
    let junk = desk.path("junk.safetensors");
    fs::write(&junk, "junk").expect("writes");
    refused(merge(&model, junk.to_str().expect("text"), &[]), &["junk.safetensors"]);
}

#[test]
fn a_fact_needs_no_file() {
    let (desk, model) = (Desk::new(&json!([fact()])), golden("gpt2-tiny"));
    let given = fact();
    let text = |field: &str| given[field].as_str().expect("text").to_owned();
    let (subject, prompt, target) = (text("subject"), text("prompt"), text("target_new"));
    let template = prompt.replace(&subject, "{}");
    let contexts = desk.contexts();
    let by_file = document(&desk.edit(&model, &contexts, &["--json"]));
    let common = ["edit", "--model", &model, "--contexts", &contexts, "--method", "rome", "--layer", "1", "--json"];
    let flags = ["--subject", &subject, "--prompt", &template, "--target-new", &target];
    let by_flags = document(&[&common[..], &flags].concat());
    let written = |report: &Value| report["operations"][0]["delta_norm"].clone();
    assert_eq!(written(&by_flags), written(&by_file));
    assert_eq!(by_flags["command"]["facts"], "the command line");

    let mut child = Command::new(env!("CARGO_BIN_EXE_rectify"))
        .args([&common[..], &["--facts", "-"]].concat())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let line = serde_json::to_string(&given).expect("JSON");
    child.stdin.take().expect("piped").write_all(line.as_bytes()).expect("writes");
    let output = child.wait_with_output().expect("ends");
    let by_pipe: Value = serde_json::from_slice(&output.stdout).expect("a report");
    assert_eq!(written(&by_pipe), written(&by_file));
}
