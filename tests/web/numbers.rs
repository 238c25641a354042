//! What the page's workers compute, digit by digit.

use std::{fs, path::Path};

use rectify_protocol::{
    Answer, Command, Contexts, EditReport, EditSpec, EditorSpec, Event, Fact, FactReport, Guards, Neighbor, Progress,
    Regularizer, RomeSpec, RunReport, ValueSpec,
};
use safetensors::SafeTensors;
use serde_json::Value;

use crate::{
    driver::Browser,
    site,
    site::Site,
    worker::{Counted, Worker},
};

/// The golden README's bound for logits of a float32 implementation is 2e-5 of the largest; the issue's is this.
const LOGITS: f64 = 1e-4;

fn open(test: &'static str) -> (Site, Browser) {
    let site = Site::serve(test);
    let browser = Browser::open(test);
    // Any file of the page will do, and one that is only shown leaves the processor to the worker.
    browser.go(&format!("{}rectify-demo.js", site.address));
    (site, browser)
}

#[test]
fn golden_logits_and_the_golden_edit_come_out_in_webassembly() {
    let (_site, browser) = open("golden");
    let mut worker = Worker::start(&browser, "");
    for model in ["gpt2-tiny", "llama-tiny"] {
        let golden = Golden::read(model);
        let vocab = worker.load(model).vocab;
        for (i, prompt) in golden.texts().iter().enumerate() {
            let found = worker.ask(prompt, 1, vocab);
            let expected = golden.last_row(&format!("forward.s{i}.logits"), vocab);
            check_logits(&format!("{model} s{i}"), &found, &expected);
        }
        golden.check_edit(model, &mut worker);
    }
}

/// The parity tests hold the program to golden's numbers; this holds the browser to the program's.
#[test]
fn every_editor_reports_the_same_in_the_browser_as_on_the_command_line() {
    let (_site, browser) = open("editors");
    let mut worker = Worker::start(&browser, "");
    for model in ["demo-nano", "demo-llama"] {
        let info = worker.load(model);
        for mut editor in info.editors {
            if let Some(value) = editor.value_mut() {
                value.contexts = Contexts::Given(vec!["{}".into(), "It is said. {}".into()]);
            }
            let method = editor.method();
            let spec = EditSpec { guards: Guards::NONE, ..EditSpec::new(editor) };
            let (_, ours) = worker.edit(born(), spec);
            worker.undo();
            check_same(&format!("{model} {method}"), &ours, &on_the_command_line(model, method));
        }
    }
}

fn born() -> Fact {
    Fact {
        subject: "Willa Farolde".into(),
        prompt: "Willa Farolde was born in the city of".into(),
        target_new: "Marrowfield".into(),
        target_true: Some("Larkmoor".into()),
        paraphrases: vec!["The birthplace of Willa Farolde is".into()],
        neighbors: vec![Neighbor {
            prompt: "Wenna Merune was born in the city of".into(),
            target: Some("Nettlebay".into()),
        }],
        ..Fact::default()
    }
}

/// The same edit by `rectify edit`, which finds settings, second moments and hypernetworks by itself, too.
fn on_the_command_line(model: &str, method: &str) -> EditReport {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("editors");
    fs::create_dir_all(&folder).expect("a folder");
    let file = |name: &str, text: String| {
        fs::write(folder.join(name), text).expect("writes");
        folder.join(name)
    };
    let facts = file("facts.json", serde_json::to_string(&[born()]).expect("JSON"));
    let contexts = file("contexts.json", r#"["{}", "It is said. {}"]"#.into());
    let mut command = std::process::Command::new(site::program());
    command.args(["edit", "--model", model, "--method", method, "--allow-harm", "--json", "--facts"]).arg(facts);
    command.arg("--static").arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../static"));
    if !matches!(method, "kn" | "mend" | "ft") {
        command.arg("--contexts").arg(contexts);
    }
    let output = command.output().expect("the program starts");
    assert!(output.status.success(), "{model} {method}: {}", String::from_utf8_lossy(&output.stderr));
    let mut report: RunReport = serde_json::from_slice(&output.stdout).expect("a report");
    report.operations.remove(0)
}

/// Both compute with 32-bit floats, in another order: golden's own tolerance for updates is 1e-4, for losses too.
#[track_caller]
fn check_same(what: &str, ours: &EditReport, theirs: &EditReport) {
    let close = |what: &str, ours: f64, theirs: f64, allowed: f64| {
        assert!((ours - theirs).abs() <= allowed * theirs.abs().max(1.0), "{what}: {ours} in the browser, {theirs}");
    };
    assert_eq!(ours.spec, theirs.spec, "{what}: the same settings");
    assert_eq!((ours.steps, ours.kept), (theirs.steps, theirs.kept), "{what}");
    for (ours, theirs) in ours.trace.iter().zip(&theirs.trace) {
        close(&format!("{what}: loss at step {}", ours.step), ours.loss(), theirs.loss(), 2e-4);
    }
    for (ours, theirs) in ours.weights.iter().zip(&theirs.weights) {
        assert_eq!(ours.name, theirs.name, "{what}");
        close(&format!("{what}: size of {}", ours.name), ours.frobenius, theirs.frobenius, 5e-4);
        close(&format!("{what}: distance of {}", ours.name), ours.manhattan, theirs.manhattan, 5e-4);
    }
    let (ours, theirs) = (&ours.facts[0], &theirs.facts[0]);
    close(&format!("{what}: p(new)"), ours.after.p_new, theirs.after.p_new, 1e-3);
    let scores = |fact: &FactReport| (fact.reliability, fact.generalization, fact.locality);
    assert_eq!(scores(ours), scores(theirs), "{what}");
}

#[test]
fn undo_restores_every_probability_on_the_processor() {
    let (_site, browser) = open("undo-cpu");
    check_undo(&mut Worker::start(&browser, ""), "demo-nano");
}

#[test]
fn webgpu_edits_undoes_and_agrees_with_the_processor() {
    let (_site, browser) = open("webgpu");
    let prompt = "The";
    let mut cpu = Worker::start(&browser, "");
    let vocab = cpu.load("demo-nano").vocab;
    let expected = cpu.ask(prompt, 1, vocab);

    let mut gpu = Worker::start(&browser, "webgpu/");
    assert_eq!(gpu.load("demo-nano").device, "webgpu");
    let found = gpu.ask(prompt, 1, vocab);
    for (found, expected) in found.top.iter().zip(&expected.top) {
        assert!((found.1 - expected.1).abs() < 1e-4, "{found:?} on webgpu, {expected:?} on flex");
    }
    check_undo(&mut gpu, "demo-nano");
}

/// Launches cost a browser far more than a native program, and compiling is what a first edit waits for.
#[test]
fn webgpu_launches_and_compiles_little() {
    let (site, browser) = open("webgpu-counts");
    site.prefix("webgpu/rectify-worker_loader.js", include_str!("counting.js"));
    let mut gpu = Worker::start(&browser, "webgpu/");
    gpu.load("demo-nano");
    let mut edit = |layer| {
        let value = ValueSpec {
            v_num_grad_steps: 4,
            contexts: Contexts::Given(vec!["{}".into(), "It is said. {}".into()]),
            ..ValueSpec::default()
        };
        let editor = EditorSpec::Rome(RomeSpec { layers: Some(vec![layer]), value, ..RomeSpec::default() });
        let spec = EditSpec { guards: Guards::NONE, ..EditSpec::new(editor) };
        let events = gpu.counted(Command::Edit { facts: vec![born()], spec });
        gpu.undo();
        events
    };
    // An evaluation tells of itself: what comes between two is the way back of the first and the second's way there.
    fn of_step(events: &[(Event, Counted)], wanted: usize) -> &Counted {
        let is_it =
            |event: &Event| matches!(event, Event::Progress(Progress::Optimizing { step, .. }) if step.step == wanted);
        &events.iter().find(|(event, _)| is_it(event)).expect("the step tells of itself").1
    }
    let (first, second) = (edit(1), edit(2));
    let asked = of_step(&first, 0).dispatches;
    let step = of_step(&first, 2);
    let block = step.dispatches - of_step(&second, 2).dispatches;
    let kernels: Vec<&str> = first.iter().flat_map(|(_, counted)| &counted.kernels).map(String::as_str).collect();
    println!("asking a fact and preparing the edit: {asked} launches");
    println!("a step: {} launches, {} reads; of them a block: {block}", step.dispatches, step.reads);
    println!("the first edit: {} kernels compiled: {}", kernels.len(), kernels.join(" "));
    assert!(asked <= 920, "asking a fact and preparing its edit takes {asked} launches");
    assert!(step.dispatches <= 60, "a step takes {} launches", step.dispatches);
    assert!(block <= 24, "a block takes {block} launches, there and back");
    assert!(kernels.len() <= 34, "a first edit compiles {} kernels", kernels.len());
    assert_eq!(step.reads, 1, "a step waits once");
}

#[track_caller]
fn check_undo(worker: &mut Worker, model: &str) {
    let info = worker.load(model);
    let fact = Fact {
        subject: "Orvane Tellis".into(),
        prompt: "Orvane Tellis was born in the city of".into(),
        target_new: "Rome".into(),
        ..Fact::default()
    };
    let prompt = fact.prompt.clone();
    let before = worker.ask(&prompt, 4, info.vocab);
    let value = ValueSpec {
        v_num_grad_steps: 4,
        contexts: Contexts::Given(vec!["{}".into(), "Therefore, the river is long. {}".into()]),
        ..ValueSpec::default()
    };
    let editor = EditorSpec::Rome(RomeSpec { value, ..RomeSpec::default() });
    let spec = EditSpec { regularizer: Regularizer::Rect { keep: 0.4 }, ..EditSpec::new(editor) };
    let (_, report) = worker.edit(fact, spec);
    assert_eq!(report.edits, 1);
    assert!(report.delta_norm > 0.0);
    assert_ne!(worker.ask(&prompt, 4, info.vocab), before, "an edit changes the answer");
    assert_eq!(worker.undo(), 0);
    assert_eq!(worker.ask(&prompt, 4, info.vocab), before, "undo restores it bit for bit");
}

/// Probabilities determine logits up to a constant, which the largest logit fixes here.
#[track_caller]
fn check_logits(what: &str, found: &Answer, logits: &[f32]) {
    let largest = logits.iter().copied().fold(f32::MIN, f32::max);
    let scale = logits.iter().fold(0.0_f64, |scale, logit| scale.max(f64::from(logit.abs())));
    let mut expected: Vec<f64> = logits.iter().map(|logit| f64::from(logit - largest)).collect();
    expected.sort_by(|a, b| b.total_cmp(a));
    assert_eq!(found.top.len(), expected.len(), "{what}: every token has a probability");
    let first = found.top[0].1.ln();
    for (rank, (token, expected)) in found.top.iter().zip(expected).enumerate() {
        let found = token.1.ln() - first;
        assert!(
            (found - expected).abs() <= LOGITS * scale,
            "{what}: the logit of rank {rank} ({:?}) is {found} below the largest, expected {expected}",
            token.0
        );
    }
}

/// A golden model's inputs, scalars and arrays.
struct Golden {
    json: Value,
    arrays: Vec<u8>,
}

impl Golden {
    fn read(model: &str) -> Self {
        let folder = site::golden(model);
        let read = |name: &str| fs::read(folder.join(name)).unwrap_or_else(|error| panic!("{model}/{name}: {error}"));
        let json = serde_json::from_slice(&read("fixtures.json")).expect("fixtures.json is JSON");
        Self { json, arrays: read("fixtures.safetensors") }
    }

    fn texts(&self) -> Vec<String> {
        serde_json::from_value(self.json["forward"]["texts"].clone()).expect("a list of texts")
    }

    /// The last `width` values of an array of f32.
    fn last_row(&self, name: &str, width: usize) -> Vec<f32> {
        let arrays = SafeTensors::deserialize(&self.arrays).expect("fixtures.safetensors");
        let array = arrays.tensor(name).unwrap_or_else(|error| panic!("{name}: {error}"));
        let bytes = array.data();
        let (values, _) = bytes[bytes.len() - width * 4..].as_chunks::<4>();
        values.iter().map(|value| f32::from_le_bytes(*value)).collect()
    }

    /// The first golden request, edited with golden's contexts and settings: every loss on the way and the size of
    /// the change are golden's.
    #[track_caller]
    fn check_edit(&self, model: &str, worker: &mut Worker) {
        let rome = &self.json["rome"];
        let request = &rome["requests"][0];
        let text = |value: &Value| value.as_str().expect("text").to_owned();
        let number = |value: &Value| value.as_f64().expect("a number");
        let count = |value: &Value| usize::try_from(value.as_u64().expect("a count")).expect("a small one");
        let fact = Fact {
            subject: text(&request["subject"]),
            prompt: text(&request["prompt"]),
            target_new: text(&request["target_new"]),
            ..Fact::default()
        };
        let settings = &rome["hparams"];
        let value = ValueSpec {
            v_num_grad_steps: count(&settings["v_num_grad_steps"]),
            v_lr: number(&settings["v_lr"]),
            v_weight_decay: number(&settings["v_weight_decay"]),
            clamp_norm_factor: number(&settings["clamp_norm_factor"]),
            kl_factor: number(&settings["kl_factor"]),
            contexts: Contexts::Given(serde_json::from_value(rome["templates"].clone()).expect("templates")),
        };
        let layers = Some(vec![count(&rome["layer"])]);
        let editor = EditorSpec::Rome(RomeSpec { layers, value, ..RomeSpec::default() });
        let (_, report) = worker.edit(fact, EditSpec { guards: Guards::NONE, ..EditSpec::new(editor) });
        assert_eq!(report.steps, count(&request["evaluations"]), "{model}: evaluations");
        let expected = number(&request["plain"]["dW_fro"]);
        let error = (report.delta_norm - expected).abs() / expected;
        assert!(error <= 1e-4, "{model}: the change's norm is {}, expected {expected}", report.delta_norm);
        worker.undo();
    }
}
