//! Every family and option that is computed, beside transformers: tiny random checkpoints, their `config.json` as
//! transformers 4 and 5 save it. `tools/families/make.py` makes them.

use rectify_core::model::{Description, LoadedModel, Loader, NoTap};
use serde_json::Value;

use crate::golden::{self, device, values};

/// Two tokens: the checkpoints are asked by ids.
const TOKENIZER: &[u8] = include_bytes!("../golden/families/tokenizer.json");

macro_rules! families {
    ($($name:literal)*) => { &[$(Family {
        name: $name,
        configs: &[
            include_str!(concat!("../golden/families/", $name, "/config.json")),
            include_str!(concat!("../golden/families/", $name, "/config.v4.json")),
        ],
        weights: include_bytes!(concat!("../golden/families/", $name, "/model.safetensors")),
        expected: include_str!(concat!("../golden/families/", $name, "/expected.json")),
    }),*] };
}

struct Family {
    name: &'static str,
    /// As transformers 5 saves it, and as 4 does.
    configs: &'static [&'static str],
    weights: &'static [u8],
    expected: &'static str,
}

const FAMILIES: &[Family] = families![
    "gpt2" "gpt2-scaled-untied" "gpt2-unscaled" "gptj" "llama" "llama-tied" "llama-biases" "llama-head-dim"
    "llama-rope-linear" "llama-rope-llama3" "mistral" "qwen2" "qwen3"
];

impl Family {
    fn load(&self, config: &str) -> LoadedModel {
        let loader = Loader::new(&Description::new(config.as_bytes(), TOKENIZER), &device());
        let mut loader = loader.unwrap_or_else(|error| panic!("{}: {error}", self.name));
        loader.add_shard("model.safetensors", self.weights).unwrap_or_else(|error| panic!("{}: {error}", self.name));
        loader.finish(self.name).unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }
}

#[golden::test]
fn every_family_answers_as_transformers_does() {
    /// As for the hidden states of the golden models: about twenty times what the reference differs in f32 and f64.
    const TOLERANCE: f64 = 2e-5;
    for family in FAMILIES {
        for config in family.configs {
            let model = family.load(config).model;
            let expected: Value = serde_json::from_str(family.expected).expect("JSON");
            for text in expected["texts"].as_array().expect("texts") {
                let list = |name: &str| text[name].as_array().expect(name).iter();
                let ids = |name| list(name).map(|id| id.as_u64().expect("an id") as u32).collect::<Vec<_>>();
                let logits: Vec<f64> = list("logits").map(|logit| logit.as_f64().expect("a number")).collect();
                let prompt = ids("ids");

                let mut past = rectify_core::model::Cache::empty(1, model.shape().layers);
                let (hidden, _) = model.extend(&[&prompt], &mut past, &mut NoTap);
                let last = hidden.flatten::<2>(0, 1).narrow(0, prompt.len() - 1, 1);
                let ours = values(model.logits(last));
                let largest = logits.iter().fold(0.0f64, |largest, logit| largest.max(logit.abs()));
                for (ours, theirs) in ours.iter().zip(&logits) {
                    let difference = (f64::from(*ours) - theirs).abs() / largest;
                    assert!(difference <= TOLERANCE, "{}: {ours} and {theirs}: {difference:.1e}", family.name);
                }
                assert_eq!(ours.len(), logits.len());
                let greedy = pollster::block_on(model.greedy(&[prompt], 8, &[])).expect("text");
                assert_eq!(greedy[0], ids("greedy"), "{}", family.name);
            }
        }
    }
}
