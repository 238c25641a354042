//! Reads the golden files and compares with them.

use burn::tensor::{Device, Tensor, TensorData};
use rectify_core::{
    edit::moments::Moment,
    model::{Cache, Description, LoadedModel, Loader, Model, NoTap},
};
use rectify_protocol::{Contexts, Fact, Step, ValueSpec};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

/// One tiny model and the numbers that belong to it.
pub struct Golden {
    pub name: &'static str,
    pub json: Value,
    arrays: &'static [u8],
}

pub const MODELS: [&str; 2] = ["gpt2-tiny", "llama-tiny"];

/// What marks a test: natively what always does, in a browser what wasm-bindgen's runner looks for.
#[cfg(not(target_arch = "wasm32"))]
pub use core::prelude::v1::test;
#[cfg(target_arch = "wasm32")]
pub use wasm_bindgen_test::wasm_bindgen_test as test;

/// Files of `tests/golden`, each with its content, which becomes part of the program: a browser opens no file.
macro_rules! files {
    ($($path:literal)*) => { &[$(($path, include_bytes!(concat!("../golden/", $path)))),*] };
}

const FILES: &[(&str, &[u8])] = files![
    "gpt2-tiny/config.json"
    "gpt2-tiny/tokenizer.json"
    "gpt2-tiny/model.safetensors"
    "gpt2-tiny/fixtures.json"
    "gpt2-tiny/fixtures.safetensors"
    "llama-tiny/config.json"
    "llama-tiny/tokenizer.json"
    "llama-tiny/model.safetensors"
    "llama-tiny/fixtures.json"
    "llama-tiny/fixtures.safetensors"
    "edits/gptj/config.json"
    "edits/gptj/model.safetensors"
    "edits/gptj/fixtures.json"
    "edits/gptj/fixtures.safetensors"
    "edits/llama-3/config.json"
    "edits/llama-3/model.safetensors"
    "edits/llama-3/fixtures.json"
    "edits/llama-3/fixtures.safetensors"
    "edits/mistral/config.json"
    "edits/mistral/model.safetensors"
    "edits/mistral/fixtures.json"
    "edits/mistral/fixtures.safetensors"
    "edits/qwen2/config.json"
    "edits/qwen2/model.safetensors"
    "edits/qwen2/fixtures.json"
    "edits/qwen2/fixtures.safetensors"
    "edits/qwen3/config.json"
    "edits/qwen3/model.safetensors"
    "edits/qwen3/fixtures.json"
    "edits/qwen3/fixtures.safetensors"
    "traces/gpt2-tiny.json"
    "traces/gpt2-tiny.safetensors"
    "traces/llama-tiny.json"
    "traces/llama-tiny.safetensors"
    "traces/gptj.json"
    "traces/gptj.safetensors"
];

pub fn file(model: &str, name: &str) -> &'static [u8] {
    let path = format!("{model}/{name}");
    FILES.iter().find(|(known, _)| *known == path).unwrap_or_else(|| panic!("{path} is not among FILES")).1
}

impl Golden {
    pub fn open(name: &'static str) -> Self {
        let json = serde_json::from_slice(file(name, "fixtures.json")).expect("fixtures.json is JSON");
        Self { name, json, arrays: file(name, "fixtures.safetensors") }
    }

    /// Causal traces of a model.
    pub fn traces(name: &'static str) -> Self {
        let json = serde_json::from_slice(file("traces", &format!("{name}.json"))).expect("traces are JSON");
        Self { name, json, arrays: file("traces", &format!("{name}.safetensors")) }
    }

    /// Its own vocabulary, or that of the model it names.
    pub fn model(&self) -> LoadedModel {
        let named = |what: &str| self.json[what].as_str().unwrap_or(self.name);
        load_with(named("model"), named("vocabulary"))
    }

    fn view(&self, array: &str) -> (Vec<usize>, Dtype, Vec<u8>) {
        let arrays = SafeTensors::deserialize(self.arrays).expect("fixtures are safetensors");
        let view = arrays.tensor(array).unwrap_or_else(|_| panic!("{}: no array {array:?}", self.name));
        (view.shape().to_vec(), view.dtype(), view.data().to_vec())
    }

    pub fn shape(&self, array: &str) -> Vec<usize> {
        self.view(array).0
    }

    pub fn f64s(&self, array: &str) -> Vec<f64> {
        let (_, dtype, bytes) = self.view(array);
        match dtype {
            Dtype::F32 => bytes.as_chunks().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect(),
            Dtype::F64 => bytes.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect(),
            other => panic!("{array:?} is {other:?}"),
        }
    }

    pub fn ids(&self, array: &str) -> Vec<u32> {
        let (_, dtype, bytes) = self.view(array);
        assert_eq!(dtype, Dtype::I32);
        bytes.as_chunks().0.iter().map(|b| i32::from_le_bytes(*b) as u32).collect()
    }

    /// The golden second moment of one layer's keys.
    pub fn moment(&self, layer: usize) -> Moment {
        self.moment_of(&format!("cov.l{layer}.C"), self.ids("cov.ids").len())
    }

    /// An array as the second moment of so many tokens' keys.
    pub fn moment_of(&self, array: &str, tokens: usize) -> Moment {
        let c = self.f64s(array);
        let d_mlp = c.len().isqrt();
        Moment::given(c, d_mlp, tokens)
    }

    /// A matrix as the golden files store it: row-major, most significant bit first.
    pub fn mask(&self, array: &str, entries: usize) -> Vec<bool> {
        let (_, _, bytes) = self.view(array);
        (0..entries).map(|i| bytes[i / 8] >> (7 - i % 8) & 1 == 1).collect()
    }

    pub fn matrix(&self, array: &str) -> Tensor<2> {
        let [rows, columns] = self.shape(array)[..] else { panic!("{array:?} is a matrix") };
        let values: Vec<f32> = self.f64s(array).into_iter().map(|value| value as f32).collect();
        Tensor::from_data(TensorData::new(values, [rows, columns]), &device())
    }

    /// The largest difference from a golden array, relative to its largest entry, is within `tolerance`.
    #[track_caller]
    pub fn check(&self, array: &str, ours: &[f32], tolerance: f64) {
        let theirs = self.f64s(array);
        assert_eq!(ours.len(), theirs.len(), "{}: {array}", self.name);
        let largest = theirs.iter().fold(0.0f64, |max, value| max.max(value.abs()));
        let worst = ours
            .iter()
            .zip(&theirs)
            .map(|(ours, theirs)| {
                let difference = (f64::from(*ours) - theirs).abs();
                if difference.is_nan() { f64::INFINITY } else { difference }
            })
            .fold(0.0, f64::max);
        assert!(
            worst <= tolerance * largest,
            "{}: {array} differs by {:.2e} of its largest entry, allowed {tolerance:.0e}",
            self.name,
            worst / largest
        );
    }
}

/// Context templates of a section, flattened: the bare prompt first.
pub fn templates(section: &Value) -> Vec<String> {
    let lists = section["templates"].as_array().expect("templates");
    lists
        .iter()
        .flat_map(|list| if list.is_array() { strings(list) } else { vec![list.as_str().expect("text").into()] })
        .collect()
}

/// How a section looks for its values.
pub fn value_spec(section: &Value) -> ValueSpec {
    let hparams = &section["hparams"];
    let number = |name: &str| hparams[name].as_f64().unwrap_or_else(|| panic!("{name}"));
    ValueSpec {
        v_num_grad_steps: number("v_num_grad_steps") as usize,
        v_lr: number("v_lr"),
        v_weight_decay: number("v_weight_decay"),
        clamp_norm_factor: number("clamp_norm_factor"),
        kl_factor: number("kl_factor"),
        contexts: Contexts::Given(templates(section)),
    }
}

/// A request of a section.
pub fn fact(request: &Value) -> Fact {
    let text = |name: &str| request[name].as_str().expect("text").to_owned();
    Fact { subject: text("subject"), prompt: text("prompt"), target_new: text("target_new"), ..Fact::default() }
}

/// Requests of a section.
pub fn requests(section: &Value) -> Vec<Value> {
    section["requests"].as_array().expect("requests").clone()
}

/// A loss trace beside the golden one: nll, kl, weight decay, loss, norm of δ and probability of the target.
pub fn check_trace(golden: &Golden, array: &str, trace: &[Step]) {
    const TRACE: f64 = 2e-5;
    let expected = golden.f64s(array);
    assert_eq!(trace.len() * 6, expected.len(), "{} {array}: evaluations", golden.name);
    for (step, theirs) in trace.iter().zip(expected.chunks(6)) {
        let ours = [step.nll, step.kl, step.weight_decay, step.loss(), step.delta_norm, step.p_target];
        for (column, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
            let allowed = if column < 4 { 1e-4 } else { TRACE * theirs.abs().max(1.0) };
            let at = step.step;
            assert!(
                (ours - theirs).abs() <= allowed,
                "{} {array} step {at} column {column}: {ours} {theirs}",
                golden.name
            );
        }
    }
}

/// Where tests compute: flex, or what `RECTIFY_TEST_DEVICE` names and this was built with.
pub fn device() -> Device {
    match std::env::var("RECTIFY_TEST_DEVICE").as_deref() {
        Err(_) | Ok("flex") => Device::flex(),
        #[cfg(feature = "wgpu")]
        Ok("wgpu") => Device::wgpu(burn::tensor::DeviceKind::DefaultDevice),
        #[cfg(feature = "vulkan")]
        Ok("vulkan") => Device::vulkan(burn::tensor::DeviceKind::DefaultDevice),
        #[cfg(feature = "cuda")]
        Ok("cuda") => Device::cuda(0),
        Ok(other) => {
            panic!("RECTIFY_TEST_DEVICE is {other:?}, and this was not built with `--features rectify-parity/{other}`")
        }
    }
}

pub fn load(name: &str) -> LoadedModel {
    load_with(name, name)
}

fn load_with(name: &str, vocabulary: &str) -> LoadedModel {
    let description = Description::new(file(name, "config.json"), file(vocabulary, "tokenizer.json"));
    let mut loader = Loader::new(&description, &device()).expect("reads");
    loader.add_shard("model.safetensors", file(name, "model.safetensors")).expect("reads");
    loader.finish(name).expect("complete")
}

pub fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_to_vec().expect("f32")
}

/// Token ids of a list.
pub fn ids(list: &Value) -> Vec<u32> {
    list.as_array().expect("a list").iter().map(|id| id.as_u64().expect("an id") as u32).collect()
}

/// Logits of what follows a prompt, `[vocab]`.
pub fn logits_after(loaded: &LoadedModel, model: &Model, prompt: &str) -> Vec<f32> {
    let ids = loaded.tokenizer.encode(prompt).expect("encodes");
    let (hidden, _) = model.extend(&[&ids], &mut Cache::empty(1, model.shape().layers), &mut NoTap);
    values(model.logits(hidden.narrow(1, ids.len() - 1, 1).flatten(0, 1)))
}

pub fn strings(value: &Value) -> Vec<String> {
    value.as_array().expect("a list").iter().map(|item| item.as_str().expect("a string").to_owned()).collect()
}
