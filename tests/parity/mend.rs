use std::collections::HashMap;

use burn::tensor::Tensor;
use rectify_core::{
    Session,
    edit::{
        Input,
        mend::{
            Hypernetwork, Origin,
            gradients::{Text, Tokens, gradients},
            plan,
            statistics::{Normal, Statistics, learn_and_normalize, normalize},
            train::{Example, Locality, Task, Trainer},
        },
    },
    model::{LoadedModel, Model, NoTap, WeightSite},
};
use rectify_protocol::{Command, EditSpec, EditorSpec, Event, Fact, MendSpec, MendTraining, Neighbor, OuterPrompt};
use safetensors::{Dtype, SafeTensors, serialize, tensor::TensorView};
use serde_json::Value;

use crate::golden::{self, Golden, MODELS, device, fact, ids, load, requests, strings, values};

/// Recommended for what is read, gradients, what they become and statistics; for updates and the outer step's
/// gradients; for logits.
pub const TOKENS: f64 = 7e-5;
const UPDATES: f64 = 1e-4;
pub const LOGITS: f64 = 2e-4;

struct Setting {
    golden: Golden,
    loaded: LoadedModel,
}

fn settings() -> impl Iterator<Item = Setting> {
    MODELS.into_iter().map(Golden::open).map(|golden| Setting { loaded: golden.model(), golden })
}

impl Setting {
    fn json(&self) -> &Value {
        &self.golden.json["mend"]
    }

    /// The golden hypernetwork, as a file of ours would have it, with the statistics of `after`.
    fn file(&self, after: &str, change: impl FnOnce(&mut HashMap<String, String>)) -> Vec<u8> {
        let prefixes = ["mend.net_".to_owned(), "mend.alpha".into(), format!("mend.{after}.net_")];
        let arrays = self.golden.json["arrays"].as_object().expect("arrays").keys();
        let arrays = arrays.filter(|name| prefixes.iter().any(|prefix| name.starts_with(prefix)));
        let tensors: Vec<(String, Vec<usize>, Vec<u8>)> = arrays
            .map(|array| {
                let bytes = self.golden.f64s(array).iter().flat_map(|value| (*value as f32).to_le_bytes()).collect();
                let name = array.trim_start_matches("mend.").trim_start_matches(&format!("{after}."));
                (name.to_owned(), self.golden.shape(array), bytes)
            })
            .collect();
        let views = tensors.iter().map(|(name, shape, bytes)| {
            (name, TensorView::new(Dtype::F32, shape.clone(), bytes).expect("bytes of this shape"))
        });
        let settings =
            MendTraining { rank: self.json()["rank"].as_u64().expect("rank") as usize, ..Default::default() };
        let mut metadata = HashMap::from([
            ("model_hash".to_owned(), self.loaded.hash.clone()),
            ("parameters".into(), self.json()["params"].to_string()),
            ("settings".into(), serde_json::to_string(&settings).expect("JSON")),
            ("data".into(), "golden".into()),
            ("data_hash".into(), "0".into()),
            ("steps".into(), "0".into()),
        ]);
        change(&mut metadata);
        serialize(views.collect::<Vec<_>>(), Some(metadata)).expect("a file")
    }

    fn network(&self) -> Hypernetwork {
        Hypernetwork::from_bytes("golden", &self.file("warm", |_| {}), &self.loaded).expect("a hypernetwork")
    }

    /// A place in a model as the arrays are named: `2.mlp.c_proj`.
    fn short(&self, site: WeightSite) -> String {
        let name = self.loaded.model.name(site);
        let name = name.trim_end_matches(".weight");
        name[name.find(|c: char| c.is_ascii_digit()).expect("a layer")..].to_owned()
    }

    fn stored(&self, change: Tensor<2>) -> Vec<f32> {
        values(if self.loaded.model.stores_transposed() { change.transpose() } else { change })
    }

    fn request(&self) -> Fact {
        let text = |name: &str| self.json()["request"][name].as_str().expect("text").to_owned();
        Fact { subject: text("subject"), prompt: text("prompt"), target_new: text("target_new"), ..Fact::default() }
    }

    fn text(&self, prompt: &str, target: &str) -> Text {
        Text::released(&self.loaded.tokenizer, &self.loaded.model, prompt, target).expect("fits")
    }

    fn requested(&self) -> Text {
        let request = self.request();
        self.text(&request.prompt, &request.target_new)
    }

    fn tokens(&self, network: &Hypernetwork, text: &Text) -> Vec<Tokens> {
        let sites = network.sites();
        let tokens = Tokens::of(&self.loaded.model, &sites, std::slice::from_ref(text));
        pollster::block_on(tokens).expect("reads")
    }

    /// What each matrix' tokens become.
    fn check_transformed(&self, case: &str, network: &Hypernetwork, normal: &[Option<Normal>]) {
        for (parameter, normal) in network.parameters().iter().zip(normal) {
            let normal = normal.as_ref().expect("every matrix has tokens");
            let (x, d) = network.learnt.nets[parameter.net].transform(normal, parameter.mode);
            let site = self.short(parameter.site);
            self.golden.check(&format!("mend.{case}.xt.{site}"), &values(x), TOKENS);
            self.golden.check(&format!("mend.{case}.dt.{site}"), &values(d), TOKENS);
        }
    }

    fn check_statistics(&self, case: &str, network: &Hypernetwork, statistics: &[Statistics]) {
        let single = |values: &[f64]| values.iter().map(|value| *value as f32).collect::<Vec<_>>();
        for (net, Statistics { k, x, d }) in network.learnt.nets.iter().zip(statistics) {
            let name = format!("mend.{case}.{}", net.name());
            self.golden.check(&format!("{name}.k"), &[*k as f32], 0.0);
            for (end, running) in [("x", x), ("d", d)] {
                self.golden.check(&format!("{name}.mu_{end}"), &single(&running.mean), TOKENS);
                self.golden.check(&format!("{name}.s_{end}"), &single(&running.s), TOKENS);
                self.golden.check(&format!("{name}.sd_{end}"), &single(&running.sd(*k)), TOKENS);
            }
        }
    }

    fn plan(&self, network: &Hypernetwork, released: bool) -> Vec<rectify_core::edit::WeightDelta> {
        let input = Input {
            model: &self.loaded.model,
            tokenizer: &self.loaded.tokenizer,
            templates: &[],
            moments: &Default::default(),
            history: &[],
            hypernetwork: Some(network),
        };
        let spec = MendSpec { released, ..MendSpec::default() };
        pollster::block_on(plan(&input, &[self.request()], &spec)).expect("an edit").deltas
    }
}

fn logits(model: &Model, ids: &[u32]) -> Vec<f32> {
    let mut past = rectify_core::model::Cache::empty(1, model.shape().layers);
    let (hidden, _) = model.extend(&[ids], &mut past, &mut NoTap);
    values(model.logits(hidden.flatten::<2>(0, 1)))
}

#[golden::test]
fn a_request_becomes_the_reference_s_tokens_and_gradients() {
    for setting in settings() {
        let (golden, text) = (&setting.golden, setting.requested());
        assert_eq!(text.ids, ids(&setting.json()["request"]["input_ids"]));
        assert_eq!(text.labels, ids(&setting.json()["request"]["labels"]));
        let sites = setting.network().sites();
        let found = gradients(&setting.loaded.model, &sites, std::slice::from_ref(&text), text.labels.len());
        let expected = setting.json()["inner_nll"].as_f64().expect("a loss");
        assert!((f64::from(values(found.nll)[0]) - expected).abs() < 1e-4);
        for (site, (x, d)) in sites.iter().zip(found.ends) {
            golden.check(&format!("mend.x.{}", setting.short(*site)), &values(x), TOKENS);
            golden.check(&format!("mend.d.{}", setting.short(*site)), &values(d), TOKENS);
        }
    }
}

#[golden::test]
fn an_edit_as_released_is_the_reference_s() {
    for setting in settings() {
        let (golden, loaded, network) = (&setting.golden, &setting.loaded, setting.network());
        let tokens = setting.tokens(&network, &setting.requested());
        let blank = network.blank_statistics();
        let (normal, statistics) =
            learn_and_normalize(blank, network.parameters(), &tokens, &device()).expect("two tokens");
        setting.check_transformed("A", &network, &normal);
        setting.check_statistics("A", &network, &statistics);

        let deltas = setting.plan(&network, true);
        assert_eq!(deltas.len(), network.sites().len());
        for change in &deltas {
            let site = setting.short(change.site);
            golden.check(&format!("mend.A.dW.{site}"), &setting.stored(change.delta.dense()), UPDATES);
        }
        let edited = loaded.model.apply(&deltas).expect("fits");
        golden.check("mend.A.logits", &logits(&edited, &setting.requested().ids), LOGITS);
    }
}

#[golden::test]
fn statistics_are_the_reference_s() {
    for setting in settings() {
        let (json, network) = (&setting.golden.json, setting.network());
        let known: Vec<Value> = ["rome", "memit"].iter().flat_map(|section| requests(&json[section])).collect();
        let mut statistics = network.blank_statistics();
        for source in strings(&setting.json()["warmup"]) {
            let request = known.iter().find(|request| request["source"] == *source).expect("a known request");
            let fact = fact(request);
            let tokens = setting.tokens(&network, &setting.text(&fact.prompt, &fact.target_new));
            let learnt = learn_and_normalize(statistics, network.parameters(), &tokens, &device());
            (_, statistics) = learnt.expect("two tokens");
        }
        setting.check_statistics("warm", &network, &statistics);
    }
}

#[golden::test]
fn an_edit_with_learnt_statistics_is_the_reference_s() {
    for setting in settings() {
        let (golden, loaded, network) = (&setting.golden, &setting.loaded, setting.network());
        let tokens = setting.tokens(&network, &setting.requested());
        let normal = normalize(&network.statistics, network.parameters(), &tokens, &device()).expect("learnt");
        setting.check_transformed("B", &network, &normal);

        let order = network.order_of_list();
        let deltas = network.changes(&normal, &order, 1.0);
        let alphas = golden.f64s("mend.alpha");
        for (change, alpha) in deltas.iter().zip(alphas) {
            let sum = values(change.delta.dense() / alpha);
            golden.check(&format!("mend.B.G.{}", setting.short(change.site)), &sum, TOKENS);
        }
        let edited = loaded.model.apply(&deltas).expect("fits");
        golden.check("mend.B.logits", &logits(&edited, &setting.requested().ids), LOGITS);
        if golden.name.starts_with("gpt2") {
            // Its labels are the same by either rule, so the sound edit is this one.
            for (ours, theirs) in setting.plan(&network, false).iter().zip(&deltas) {
                assert_eq!(values(ours.delta.dense()), values(theirs.delta.dense()));
            }
        }
    }
}

#[golden::test]
fn a_step_of_training_is_the_reference_s() {
    for setting in settings() {
        let (golden, network) = (&setting.golden, setting.network());
        let outer_step = &setting.json()["outer_step"];
        let edit = Text { ids: ids(&outer_step["edit_ids"]), labels: ids(&outer_step["edit_labels"]) };
        let rest = ids(&outer_step["loc_ids"]);
        let at = rest.len() - ids(&outer_step["loc_ans_ids"]).len()..rest.len();
        let locality = Locality { ids: rest, at };
        let task = Task { edit: &edit, outer: &edit, locality: &locality };
        let trainer = Trainer::with(&setting.loaded, network.clone());
        let outcome = pollster::block_on(trainer.differentiate(&task)).expect("a step");

        let losses = outcome.losses;
        let settings = &network.origin.settings;
        for (name, ours) in
            [("loss_edit", losses.edit), ("loss_loc", losses.locality), ("loss_total", losses.total(settings))]
        {
            let theirs = outer_step[name].as_f64().expect("a loss");
            assert!((ours - theirs).abs() < 1e-4 * theirs, "{} {name}: {ours} {theirs}", golden.name);
        }
        let gradients = outcome.gradients;
        for (name, gradient) in gradients.names().iter().zip(gradients.tensors()) {
            golden.check(&format!("mend.C.grad.{name}"), &values(gradient), UPDATES);
        }
        setting.check_statistics("C", &network, &outcome.statistics);
    }
}

fn darrieux() -> Fact {
    Fact {
        subject: "Danielle Darrieux".into(),
        prompt: "The mother tongue of Danielle Darrieux is".into(),
        target_new: "English".into(),
        paraphrases: vec!["Danielle Darrieux is a native speaker of".into()],
        neighbors: vec![Neighbor {
            prompt: "Michel Rocard is a native speaker of".into(),
            target: Some("French".into()),
        }],
        ..Fact::default()
    }
}

fn stieltjes() -> Fact {
    Fact {
        subject: "Thomas Joannes Stieltjes".into(),
        prompt: "Thomas Joannes Stieltjes was born in".into(),
        target_new: "Paris".into(),
        neighbors: vec![Neighbor { prompt: "The river flows to the".into(), target: None }],
        ..Fact::default()
    }
}

/// A training of a few steps on two facts.
struct Small {
    loaded: LoadedModel,
    examples: Vec<Example>,
    origin: Origin,
}

impl Small {
    fn new(name: &str, change: impl FnOnce(&mut MendTraining)) -> Self {
        let loaded = load(name);
        let examples = [darrieux(), stieltjes()];
        let examples = examples.iter().map(|fact| Example::new(&loaded, fact, OuterPrompt::Rephrase).expect("valid"));
        let examples = examples.collect();
        let mut settings = MendTraining { rank: 8, lr: 1e-3, accumulate: 3, validate_every: 4, ..Default::default() };
        change(&mut settings);
        let origin = Origin { settings, data: "two facts".into(), data_hash: "2".into(), steps: 0 };
        Self { loaded, examples, origin }
    }

    fn trainer(&self) -> Trainer {
        Trainer::new(&self.loaded, self.origin.clone()).expect("possible settings")
    }

    /// Trains until so many steps were made.
    fn train(&self, trainer: &mut Trainer, steps: usize) {
        while trainer.steps() < steps || trainer.owes_validation(usize::MAX) {
            if trainer.owes_validation(usize::MAX) {
                pollster::block_on(trainer.validate(&self.examples, &mut |_| {})).expect("validates");
            } else {
                let task = trainer.draw(&self.examples);
                pollster::block_on(trainer.step(&task)).expect("a step");
            }
        }
    }
}

fn numbers(network: &Hypernetwork) -> Vec<Vec<f32>> {
    network.learnt.tensors().into_iter().map(values).collect()
}

#[golden::test]
fn a_new_hypernetwork_passes_gradients_on_and_can_learn() {
    for name in MODELS {
        let small = Small::new(name, |_| {});
        let trainer = small.trainer();
        let (model, network) = (&small.loaded.model, trainer.network());
        let edit = &small.examples[0].edit;
        let sites = network.sites();
        let tokens = Tokens::of(model, &sites, std::slice::from_ref(edit));
        let tokens = pollster::block_on(tokens).expect("reads");
        let blank = network.blank_statistics();
        let (normal, _) = learn_and_normalize(blank, network.parameters(), &tokens, &device()).expect("two tokens");
        for (parameter, normal) in network.parameters().iter().zip(normal) {
            let normal = normal.expect("tokens");
            let (x, d) = network.learnt.nets[parameter.net].transform(&normal, parameter.mode);
            assert_eq!((values(x), values(d)), (values(normal.x), values(normal.d)), "{name}");
        }
        let task = Task { edit, outer: edit, locality: &small.examples[0].locality[0] };
        let gradients = pollster::block_on(trainer.differentiate(&task)).expect("a step").gradients;
        for net in &gradients.nets {
            for layer in &net.layers {
                assert!(values(layer.u.clone()).iter().any(|value| *value != 0.0), "{name}: U learns");
            }
        }
    }
}

#[golden::test]
fn training_makes_the_targets_likelier() {
    for name in MODELS {
        let small = Small::new(name, |settings| settings.accumulate = 1);
        let mut trainer = small.trainer();
        small.train(&mut trainer, 4);
        let before = trainer.best().expect("validated").losses;
        small.train(&mut trainer, 40);
        let after = trainer.best().expect("validated").losses;
        let settings = &small.origin.settings;
        assert!(after.total(settings) < 0.8 * before.total(settings), "{name}: {before:?} {after:?}");
    }
}

#[golden::test]
fn a_reloaded_hypernetwork_makes_the_same_edit() {
    for name in MODELS {
        let small = Small::new(name, |_| {});
        let mut trainer = small.trainer();
        small.train(&mut trainer, 6);
        let network = trainer.network();
        let bytes = pollster::block_on(network.to_bytes(&small.loaded.model)).expect("a file");
        let again = Hypernetwork::from_bytes("mend.safetensors", &bytes, &small.loaded).expect("reads");
        assert_eq!((numbers(&again), &again.statistics), (numbers(network), &network.statistics), "{name}");
        assert_eq!((&again.origin, again.parameters()), (&network.origin, network.parameters()));

        let mut session = Session::new(device(), "flex", || 0.0);
        session.open(small.loaded.clone());
        session.add_hypernetwork("mend.safetensors", &bytes).expect("reads");
        let spec = EditSpec::new(EditorSpec::Mend(MendSpec::default()));
        // A batch, whose labels are not all as long.
        let facts = vec![darrieux(), Fact { target_new: "Buenos Aires".into(), ..stieltjes() }];
        let command = Command::Edit { facts, spec };
        let Event::Edited(report) = pollster::block_on(session.handle(command, &mut |_| {})).expect("edits") else {
            panic!("an edit was asked for")
        };
        assert_eq!(report.weights.len(), network.sites().len());
        assert!(report.notes[0].contains("trained for 6 steps on two facts"), "{:?}", report.notes);
    }
}

#[golden::test]
fn a_training_that_was_stopped_goes_on_as_if_it_had_not_been() {
    for name in MODELS {
        let small = Small::new(name, |_| {});
        let (mut whole, mut first) = (small.trainer(), small.trainer());
        small.train(&mut whole, 11);
        // In the middle of an update, and after a validation.
        small.train(&mut first, 5);
        let bytes = pollster::block_on(first.to_bytes()).expect("a file");
        let mut second =
            Trainer::from_bytes("state", &bytes, &small.loaded, &small.origin).expect("reads").expect("ours");
        small.train(&mut second, 11);
        assert_eq!(numbers(second.network()), numbers(whole.network()), "{name}");
        assert_eq!(second.network().statistics, whole.network().statistics);
        let (ours, theirs) = (second.best().expect("validated"), whole.best().expect("validated"));
        assert_eq!((numbers(&ours.network), ours.losses), (numbers(&theirs.network), theirs.losses));
        assert_eq!(ours.network.origin, theirs.network.origin);

        let other = Origin { data_hash: "3".into(), ..small.origin.clone() };
        assert!(Trainer::from_bytes("state", &bytes, &small.loaded, &other).expect("reads").is_none());
    }
}

#[golden::test]
fn numbers_of_a_training_that_cannot_be_are_named() {
    let small = Small::new("gpt2-tiny", |_| {});
    let mut trainer = small.trainer();
    small.train(&mut trainer, 5);
    let bytes = pollster::block_on(trainer.to_bytes()).expect("a file");
    let (_, header) = SafeTensors::read_metadata(&bytes).expect("a header");
    for (name, value) in [
        ("steps", "18446744073709551615"),
        ("updates", "-1"),
        ("summed", "18446744073709551615"),
        ("validated", "6"),
        ("best_steps", "6"),
        ("best_edit", "nan"),
    ] {
        let mut metadata = header.metadata().clone().expect("metadata");
        assert!(metadata.insert(name.into(), value.into()).is_some(), "{name}");
        let tensors = SafeTensors::deserialize(&bytes).expect("a file");
        let changed = serialize(tensors.tensors(), Some(metadata)).expect("a file");
        let read = Trainer::from_bytes("state", &changed, &small.loaded, &small.origin);
        let message = read.map(drop).expect_err(name).to_string();
        assert!(message.contains("state") && message.contains(name), "{message}");
    }
}

#[golden::test]
fn a_step_that_leaves_the_finite_numbers_is_left_out() {
    let small = Small::new("gpt2-tiny", |settings| settings.edit_lr = 1e38);
    let mut trainer = small.trainer();
    let before = numbers(trainer.network());
    let task = trainer.draw(&small.examples);
    pollster::block_on(trainer.step(&task)).expect("is counted");
    assert_eq!((trainer.steps(), trainer.skipped()), (1, 1));
    assert_eq!(numbers(trainer.network()), before);
}

#[track_caller]
fn check_refused(setting: &Setting, bytes: &[u8], parts: &[&str]) {
    let error = Hypernetwork::from_bytes("x.safetensors", bytes, &setting.loaded).err().expect("it was read");
    for part in ["x.safetensors"].iter().chain(parts) {
        assert!(error.to_string().contains(part), "{error}\nlacks {part:?}");
    }
}

#[golden::test]
fn a_file_that_is_no_hypernetwork_of_this_model_is_named() {
    let all: Vec<Setting> = settings().collect();
    let [gpt2, llama] = all.as_slice() else { panic!("two models") };
    let set = |name: &'static str, value: String| {
        move |metadata: &mut HashMap<String, String>| {
            metadata.insert(name.into(), value);
        }
    };
    check_refused(gpt2, b"\x80\x02}q\x00.", &["is a Python pickle"]);
    check_refused(gpt2, b"PK\x03\x04", &["is a zip archive"]);
    check_refused(gpt2, &gpt2.file("warm", |_| {})[..1000], &["is not a whole safetensors file"]);
    check_refused(gpt2, &llama.file("warm", |_| {}), &["was trained for the model with hash", &gpt2.loaded.hash]);
    let pretends = llama.file("warm", set("model_hash", gpt2.loaded.hash.clone()));
    check_refused(gpt2, &pretends, &["gate_proj", "is no matrix that editors change in this model"]);
    let thinner = serde_json::to_string(&MendTraining { rank: 16, ..Default::default() }).expect("JSON");
    check_refused(gpt2, &gpt2.file("warm", set("settings", thinner)), &["layer0.U", "[320, 32]", "it is [320, 16]"]);
    check_refused(gpt2, &gpt2.file("warm", set("parameters", "[]".into())), &["names no parameter"]);
    check_refused(gpt2, &gpt2.file("nothing", |_| {}), &["has no tensor \"net_256x64.k\""]);
    let without = gpt2.file("warm", |metadata| drop(metadata.remove("parameters")));
    check_refused(gpt2, &without, &["does not say its parameters", "rectify mend train"]);
}

#[golden::test]
fn an_edit_without_a_hypernetwork_says_how_to_get_one() {
    let mut session = Session::new(device(), "flex", || 0.0);
    session.open(load("gpt2-tiny"));
    let spec = EditSpec::new(EditorSpec::Mend(MendSpec::default()));
    let command = Command::Edit { facts: vec![darrieux()], spec };
    let error = pollster::block_on(session.handle(command, &mut |_| {})).unwrap_err();
    assert!(error.to_string().contains("rectify mend train"), "{error}");
}
