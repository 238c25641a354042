use std::collections::BTreeMap;

use burn::tensor::{Tensor, TensorData, activation::softmax};
use rectify_core::{
    Result, Session,
    edit::{
        Delta, Input, Plan,
        kn::{Question, Reading, Scores, attribute},
        plan,
    },
    model::{At, Cache, Capture, LoadedModel, Model, Site, Tap},
    tokenizer::Followed,
};
use rectify_protocol::{Command, EditSpec, EditorSpec, Event, Fact, Guards, KnNeuron, KnSpec, KnVariant, Progress};
use serde_json::Value;

use crate::golden::{self, Golden, MODELS, device, ids, load, logits_after, values};

/// Recommended for scores, and for what is written; the logits' own rounding comes on top.
pub const SCORES: f64 = 5e-5;
pub const ROWS: f64 = 1e-5;

fn with_input<T>(loaded: &LoadedModel, then: impl FnOnce(&Input<'_>) -> T) -> T {
    let moments = BTreeMap::new();
    then(&Input {
        model: &loaded.model,
        tokenizer: &loaded.tokenizer,
        templates: &[],
        moments: &moments,
        history: &[],
        hypernetwork: None,
    })
}

fn planned(loaded: &LoadedModel, fact: &Fact, spec: &KnSpec) -> Result<Plan> {
    let editor = EditorSpec::Kn(spec.clone());
    with_input(loaded, |input| pollster::block_on(plan(input, std::slice::from_ref(fact), &editor, &mut |_| {})))
}

fn reading(loaded: &LoadedModel, fact: &Fact, variant: KnVariant) -> Result<Reading> {
    with_input(loaded, |input| pollster::block_on(Reading::new(input, fact, variant)))
}

fn scores(model: &Model, questions: &[Question], spec: &KnSpec) -> Scores {
    pollster::block_on(attribute(model, questions, spec, &mut |_| {})).expect("attributes")
}

fn fact() -> Fact {
    Fact {
        subject: "Danielle Darrieux".into(),
        prompt: "The mother tongue of Danielle Darrieux is".into(),
        target_new: "English".into(),
        target_true: Some("French".into()),
        ..Fact::default()
    }
}

/// A golden case; its subject is of no use to KN, so any word of the prompt is one.
fn case(case: &Value) -> (String, Fact, KnSpec) {
    let text = |name: &str| case[name].as_str().expect("text").to_owned();
    let number = |name: &str| case[name].as_u64().expect("a number") as usize;
    let prompt = text("prompt");
    let fact = Fact {
        subject: prompt.split(' ').next().expect("a word").into(),
        prompt,
        target_new: text("target"),
        target_true: Some(text("ground_truth")),
        ..Fact::default()
    };
    let adaptive_threshold = case["adaptive_threshold"].as_f64().expect("a number");
    let spec = KnSpec { steps: number("steps"), batch_size: number("batch"), adaptive_threshold, ..KnSpec::default() };
    (format!("kn.{}", text("tag")), fact, spec)
}

#[golden::test]
fn an_edit_is_the_reference_s() {
    for golden in MODELS.map(Golden::open) {
        let loaded = golden.model();
        for json in golden.json["kn"]["cases"].as_array().expect("cases") {
            let (name, fact, spec) = case(json);
            let reading = reading(&loaded, &fact, KnVariant::Released).expect("reads");
            assert_eq!(reading.says, ids(&json["original_prediction_ids"]), "{} {name}", golden.name);
            assert_eq!(reading.target, ids(&json["target_ids"]), "{} {name}", golden.name);
            let asked: Vec<u32> = reading.questions.iter().flat_map(|question| question.targets.clone()).collect();
            assert_eq!(asked, ids(&json["ground_truth_ids"]), "{} {name}", golden.name);

            let scores = scores(&loaded.model, &reading.questions, &spec);
            let shares: Vec<f32> = scores.values.iter().map(|score| *score as f32).collect();
            golden.check(&format!("{name}.scores"), &shares, SCORES);
            let neurons = scores.above(spec.adaptive_threshold);
            let flat: Vec<u32> = neurons.iter().flat_map(|neuron| [neuron.layer as u32, neuron.index as u32]).collect();
            assert_eq!(flat, golden.ids(&format!("{name}.neurons")), "{} {name}", golden.name);

            let planned = planned(&loaded, &fact, &spec).expect("an edit");
            let edited = loaded.model.apply(&planned.deltas).expect("fits");
            for change in &planned.deltas {
                let Delta::LowRank { right, .. } = &change.delta else { panic!("KN is rank one in each layer") };
                golden.check(&format!("{name}.row_change"), &values(right.clone()), ROWS);
            }
            let site = |layer| planned.deltas.iter().find(|change| change.site.layer == layer).expect("changed").site;
            let rows: Vec<f32> = neurons
                .iter()
                .flat_map(|neuron| values(edited.weight(site(neuron.layer)).narrow(0, neuron.index, 1)))
                .collect();
            golden.check(&format!("{name}.rows_after"), &rows, ROWS);
            golden.check(&format!("{name}.logits_after"), &logits_after(&loaded, &edited, &fact.prompt), SCORES);
        }
    }
}

/// Puts `value` in the place of the last token's activation in one layer, in every row.
struct Replace {
    site: Site,
    /// `[rows, d_mlp]`
    value: Tensor<2>,
}

impl Tap for Replace {
    fn tap(&mut self, site: Site, value: Tensor<3>) -> Tensor<3> {
        if site != self.site {
            return value;
        }
        let [_, pos, _] = value.dims();
        let new = self.value.clone().unsqueeze_dim(1);
        if pos == 1 { new } else { Tensor::cat(vec![value.narrow(1, 0, pos - 1), new], 1) }
    }
}

/// What a neuron may be, and where it is.
const NEURONS: [(KnNeuron, At); 2] = [(KnNeuron::PreActivation, At::MlpPre), (KnNeuron::PostActivation, At::MlpKey)];

/// The activation of the last token in every layer, `[1, d_mlp]` each.
fn activations(model: &Model, ids: &[u32], at: At) -> Vec<Tensor<2>> {
    let sites: Vec<Site> = (0..model.shape().layers).map(|layer| Site { layer, at }).collect();
    let mut capture = Capture::new(&sites);
    model.extend(&[ids], &mut Cache::empty(1, sites.len()), &mut capture);
    sites.iter().map(|site| capture.take(*site).narrow(1, ids.len() - 1, 1).flatten(0, 1)).collect()
}

/// The probability of the question's targets in rows of the whole prompt, `value [rows, d_mlp]` in the place of the
/// last token's activation.
fn probability(model: &Model, question: &Question, site: Site, value: Tensor<2>) -> Tensor<2> {
    let [rows, _] = value.dims();
    let prompts = vec![question.ids.as_slice(); rows];
    let mut past = Cache::empty(rows, model.shape().layers);
    let (hidden, _) = model.extend(&prompts, &mut past, &mut Replace { site, value });
    let last = hidden.narrow(1, question.ids.len() - 1, 1).flatten(0, 1);
    let p = softmax(model.logits(last), 1);
    let of = |id: &u32| p.clone().narrow(1, *id as usize, 1);
    question.targets.iter().map(of).reduce(|sum, p| sum + p).expect("targets")
}

/// The definition: for each layer a pass of its own, from the bottom and over the whole prompt.
fn one_layer_at_a_time(model: &Model, question: &Question, steps: usize, at: At) -> Vec<f32> {
    let points: Vec<f32> = (0..steps).map(|s| s as f32 / (steps - 1) as f32).collect();
    let alpha = Tensor::<2>::from_data(TensorData::new(points, [steps, 1]), &device());
    let layers = activations(model, &question.ids, at).into_iter().enumerate();
    layers
        .flat_map(|(layer, activation)| {
            let scaled = (alpha.clone() * activation.clone()).autodiff().require_grad();
            let gradients = probability(model, question, Site { layer, at }, scaled.clone()).sum().backward();
            let gradient = scaled.grad(&gradients).expect("tracked").sum_dim(0);
            values(gradient * activation / (steps * question.targets.len()) as f64)
        })
        .collect()
}

#[track_caller]
fn check_sweep(model: &Model, question: &Question) {
    for (neuron, at) in NEURONS {
        let expected = one_layer_at_a_time(model, question, 6, at);
        let largest = expected.iter().fold(0.0f32, |max, score| max.max(score.abs()));
        assert!(largest > 0.0);
        for batch_size in [6, 2] {
            let spec = KnSpec { steps: 6, batch_size, neuron, ..KnSpec::default() };
            let ours = scores(model, std::slice::from_ref(question), &spec);
            for (ours, expected) in ours.values.iter().zip(&expected) {
                assert!((*ours as f32 - expected).abs() <= 2e-5 * largest, "{ours} {expected} of {largest}");
            }
        }
    }
}

#[golden::test]
fn one_sweep_for_all_layers_is_a_pass_for_each() {
    for name in MODELS {
        let loaded = load(name);
        let ids = loaded.tokenizer.encode(&fact().prompt).expect("encodes");
        check_sweep(&loaded.model, &Question { ids: ids.clone(), targets: vec![38, 773, 38] });
        check_sweep(&loaded.model, &Question { ids: ids[..1].to_vec(), targets: vec![5] });
    }
}

#[golden::test]
fn the_scores_of_a_layer_add_up_to_what_its_activation_is_worth() {
    for name in MODELS {
        let loaded = load(name);
        let ids = loaded.tokenizer.encode(&fact().prompt).expect("encodes");
        let best = pollster::block_on(loaded.model.greedy(std::slice::from_ref(&ids), 1, &[])).expect("fits")[0][0];
        let question = Question { ids, targets: vec![best] };
        for (neuron, at) in NEURONS {
            let spec = KnSpec { steps: 400, batch_size: 50, neuron, ..KnSpec::default() };
            let scores = scores(&loaded.model, std::slice::from_ref(&question), &spec);
            for (layer, activation) in activations(&loaded.model, &question.ids, at).into_iter().enumerate() {
                let sum: f64 = scores.values[layer * scores.d_mlp..][..scores.d_mlp].iter().sum();
                let site = Site { layer, at };
                let p = |value: Tensor<2>| f64::from(values(probability(&loaded.model, &question, site, value))[0]);
                let (all, none) = (p(activation.clone()), p(activation.zeros_like()));
                assert!((sum - (all - none)).abs() < 0.01 * all.max(none), "{name} {layer}: {sum}, {all} - {none}");
            }
        }
    }
}

#[golden::test]
fn strictly_read_every_true_token_follows_the_ones_before() {
    for name in MODELS {
        let loaded = load(name);
        let reading = reading(&loaded, &fact(), KnVariant::Strict).expect("reads");
        let Followed { prompt, target: gold } = loaded.tokenizer.followed(&fact().prompt, "French").expect("encodes");
        let asked: Vec<(Vec<u32>, Vec<u32>)> =
            reading.questions.iter().map(|question| (question.ids.clone(), question.targets.clone())).collect();
        let expected: Vec<(Vec<u32>, Vec<u32>)> =
            (0..gold.len()).map(|i| ([&prompt, &gold[..i]].concat(), vec![gold[i]])).collect();
        assert_eq!(asked, expected, "{name}");
        assert_eq!((reading.says.len(), reading.taken_out), (reading.target.len(), 1.0), "{name}");
        let spec = KnSpec { variant: KnVariant::Strict, ..KnSpec::default() };
        assert!(!planned(&loaded, &fact(), &spec).expect("an edit").deltas.is_empty(), "{name}");
    }
}

#[track_caller]
fn check_refused(fact: &Fact, part: &str) {
    for name in MODELS {
        let loaded = load(name);
        let message = planned(&loaded, fact, &KnSpec::default()).err().expect("refused").to_string();
        assert!(message.contains(part), "{name}: {message}");
    }
}

#[golden::test]
fn what_cannot_be_rewritten_is_said() {
    check_refused(&Fact { target_true: None, ..fact() }, "target_true is missing");
    check_refused(&Fact { target_true: Some(" ".into()), ..fact() }, "target_true is empty");
    check_refused(&Fact { target_new: String::new(), ..fact() }, "target_new is empty");
    check_refused(&Fact { subject: "Darrieux of".into(), ..fact() }, "does not occur");
    check_refused(
        &Fact { prompt: format!("{}{}", "Once upon a time. ".repeat(40), fact().prompt), ..fact() },
        "context",
    );
}

#[golden::test]
fn a_session_rewrites_neurons_tells_how_far_it_is_and_takes_it_back() {
    for name in MODELS {
        let mut session = Session::new(device(), "flex", || 0.0);
        session.open(load(name));
        let kn = KnSpec { steps: 20, batch_size: 5, ..KnSpec::default() };
        let spec = EditSpec { guards: Guards::NONE, ..EditSpec::new(EditorSpec::Kn(kn)) };
        let mut told = Vec::new();
        let mut watch = |progress: Progress| {
            if let Progress::Planning { done, total } = progress {
                told.push((done, total));
            }
        };
        let edit = |fact| Command::Edit { facts: vec![fact], spec: spec.clone() };
        let Event::Edited(report) = pollster::block_on(session.handle(edit(fact()), &mut watch)).expect("edits") else {
            panic!("a report")
        };
        assert!(report.notes[0].starts_with("neurons that KN rewrote: "), "{name}: {:?}", report.notes);
        assert!(told.iter().enumerate().all(|(i, told)| *told == (i, told.1) && told.1 % 4 == 0), "{name}: {told:?}");
        assert_eq!(told.len(), told[0].1, "{name}");

        let untrue = Fact { target_true: None, ..fact() };
        assert!(pollster::block_on(session.handle(edit(untrue), &mut |_| {})).is_err());
        let undone = pollster::block_on(session.handle(Command::Undo, &mut |_| {})).expect("undoes");
        assert_eq!(undone, Event::Undone { edits: 0 }, "{name}");
    }
}
