//! Edits of the other families beside the reference loop, on tiny random checkpoints. `tools/families/edits.py` makes
//! them; the two trained models of the other files are GPT-2 and LLaMA.

use std::sync::Arc;

use crate::{
    golden::{self, Golden, ids, logits_after, strings, values},
    kn::{ROWS, SCORES},
    memit,
    mend::{LOGITS, TOKENS},
    rome::{KEYS, VALUES},
};
use rectify_core::{
    edit::{
        Delta, Input,
        kn::{Reading, attribute},
        mend::gradients::{Text, gradients},
        plan, rome,
    },
    model::{LoadedModel, Matrix, WeightSite},
};
use rectify_protocol::{
    ArchitectureKind, Contexts, EditorSpec, Fact, KnSpec, KnVariant, MemitSpec, Progress, RomeSpec, ValueSpec,
};

const FAMILIES: [(&str, ArchitectureKind); 5] = [
    ("edits/gptj", ArchitectureKind::GptJ),
    ("edits/llama-3", ArchitectureKind::Llama),
    ("edits/mistral", ArchitectureKind::Mistral),
    ("edits/qwen2", ArchitectureKind::Qwen2),
    ("edits/qwen3", ArchitectureKind::Qwen3),
];

struct Setting {
    golden: Golden,
    loaded: LoadedModel,
    facts: Vec<Fact>,
    templates: Vec<String>,
    value: ValueSpec,
}

fn settings() -> impl Iterator<Item = Setting> {
    FAMILIES.into_iter().map(|(name, architecture)| {
        let golden = Golden::open(name);
        let loaded = golden.model();
        assert_eq!(loaded.model.architecture(), architecture);
        let facts = serde_json::from_value(golden.json["facts"].clone()).expect("facts");
        let templates = strings(&golden.json["contexts"]);
        let value: ValueSpec = serde_json::from_value(golden.json["value"].clone()).expect("hyper-parameters");
        let value = ValueSpec { contexts: Contexts::Given(templates.clone()), ..value };
        Setting { golden, loaded, facts, templates, value }
    })
}

impl Setting {
    fn layers(&self) -> Vec<usize> {
        let layers = self.golden.json["memit"]["layers"].as_array().expect("layers").iter();
        layers.map(|layer| layer.as_u64().expect("a layer") as usize).collect()
    }

    fn with_input<T>(&self, then: impl FnOnce(&Input<'_>) -> T) -> T {
        let moment = |layer: usize| (layer, Arc::new(self.golden.moment_of(&format!("moment.l{layer}"), 1)));
        let moments = self.layers().into_iter().map(moment).collect();
        then(&Input {
            model: &self.loaded.model,
            tokenizer: &self.loaded.tokenizer,
            templates: &self.templates,
            moments: &moments,
            history: &[],
            hypernetwork: None,
        })
    }
}

fn nobody(_: Progress) {}

#[golden::test]
fn rome_is_the_reference_s_in_every_family_and_its_model_says_the_same() {
    for setting in settings() {
        let Setting { golden, loaded, facts, value, .. } = &setting;
        let layer = golden.json["rome"]["layer"].as_u64().expect("a layer") as usize;
        let spec = RomeSpec { layers: Some(vec![layer]), value: value.clone(), ..RomeSpec::default() };
        for (i, fact) in facts.iter().enumerate() {
            let planned = setting.with_input(|input| pollster::block_on(rome::plan(input, fact, &spec, &mut nobody)));
            let deltas = planned.expect("an edit").deltas;
            let [Delta::LowRank { left, right }] = deltas.iter().map(|change| &change.delta).collect::<Vec<_>>()[..]
            else {
                panic!("ROME is rank one in one matrix")
            };
            golden.check(&format!("rome.r{i}.u"), &values(left.clone()), KEYS);
            golden.check(&format!("rome.r{i}.v"), &values(right.clone()), VALUES);
            let edited = loaded.model.apply(&deltas).expect("fits");
            golden.check(&format!("rome.r{i}.logits"), &logits_after(loaded, &edited, &fact.prompt), LOGITS);
            let prompt = loaded.tokenizer.encode(&fact.prompt).expect("encodes");
            let greedy = pollster::block_on(edited.greedy(&[prompt], 8, &[])).expect("text");
            assert_eq!(greedy[0], ids(&golden.json["greedy"][format!("rome.r{i}")]), "{} {i}", golden.name);
        }
    }
}

#[golden::test]
fn memit_is_the_reference_s_in_every_family() {
    for setting in settings() {
        let Setting { golden, facts, value, .. } = &setting;
        let spec = EditorSpec::Memit(MemitSpec {
            layers: Some(setting.layers()),
            mom2_update_weight: golden.json["memit"]["lambda"].as_f64().expect("lambda"),
            value: value.clone(),
            ..MemitSpec::default()
        });
        let planned = setting.with_input(|input| pollster::block_on(plan(input, facts, &spec, &mut nobody)));
        let deltas = planned.expect("an edit").deltas;
        assert_eq!(deltas.len(), setting.layers().len());
        for change in deltas {
            golden.check(&format!("memit.l{}.dW", change.site.layer), &values(change.delta.dense()), memit::TOLERANCE);
        }
    }
}

#[golden::test]
fn kn_is_the_reference_s_in_every_family() {
    for setting in settings() {
        let (golden, loaded) = (&setting.golden, &setting.loaded);
        let job = &golden.json["kn"];
        let number = |name: &str| job[name].as_u64().expect("a number") as usize;
        let spec = KnSpec { steps: number("steps"), batch_size: number("batch_size"), ..KnSpec::default() };
        let fact = Fact { target_true: job["ground_truth"].as_str().map(Into::into), ..setting.facts[0].clone() };
        let reading = setting
            .with_input(|input| pollster::block_on(Reading::new(input, &fact, KnVariant::Released)))
            .expect("a valid fact");
        let scores = pollster::block_on(attribute(&loaded.model, &reading.questions, &spec, &mut nobody));
        let scores: Vec<f32> = scores.expect("attributes").values.iter().map(|score| *score as f32).collect();
        golden.check("kn.scores", &scores, SCORES);
        golden.check("kn.row_change", &values(reading.added(&loaded.model)), ROWS);
    }
}

#[golden::test]
fn mend_reads_the_reference_s_tokens_and_gradients_of_every_matrix_in_every_family() {
    for Setting { golden, loaded, facts, .. } in settings() {
        let fact = &facts[1];
        let text = Text::new(&loaded.tokenizer, &loaded.model, &fact.prompt, &fact.target_new).expect("fits");
        let gated = loaded.model.architecture() != ArchitectureKind::GptJ;
        let matrices: &[Matrix] =
            if gated { &[Matrix::MlpUp, Matrix::MlpGate, Matrix::MlpDown] } else { &[Matrix::MlpUp, Matrix::MlpDown] };
        let sites: Vec<WeightSite> = (0..loaded.model.shape().layers)
            .flat_map(|layer| matrices.iter().map(move |matrix| WeightSite { layer, matrix: *matrix }))
            .collect();
        let found = gradients(&loaded.model, &sites, std::slice::from_ref(&text), text.labels.len());
        for (site, (x, d)) in sites.iter().zip(found.ends) {
            let name = loaded.model.name(*site);
            let name = name.trim_end_matches(".weight");
            golden.check(&format!("mend.x.{name}"), &values(x), TOKENS);
            golden.check(&format!("mend.d.{name}"), &values(d), TOKENS);
        }
    }
}
