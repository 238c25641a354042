//! What must hold whatever the numbers are.

use burn::tensor::{Device, Distribution, Tensor};
use rectify_core::{
    Session,
    edit::{
        Delta, WeightDelta,
        rome::rank_one,
        value::{FactRows, Prepared, ValueSpec},
    },
    model::{Matrix, WeightSite},
};
use rectify_protocol::{
    Command, Contexts, EditSpec, EditorSpec, Event, Fact, FactToken, KeyChoice, Neighbor, Progress, Regularizer,
    RomeSpec,
};

use crate::golden::{Golden, MODELS, load, values};

fn fact() -> Fact {
    Fact {
        subject: "Danielle Darrieux".into(),
        prompt: "The mother tongue of Danielle Darrieux is".into(),
        target_new: "English".into(),
        target_true: Some("French".into()),
        paraphrases: vec!["Danielle Darrieux is a native speaker of".into()],
        neighbors: vec![Neighbor {
            prompt: "Michel Rocard is a native speaker of".into(),
            target: Some("French".into()),
        }],
    }
}

fn spec(regularizer: Regularizer) -> EditSpec {
    let contexts = Contexts::Given(vec!["{}".into(), "The city was founded in the north. {}".into()]);
    let rome = RomeSpec { layers: Some(vec![1]), contexts, ..RomeSpec::default() };
    EditSpec { editor: EditorSpec::Rome(rome), regularizer, seed: 7 }
}

fn session(name: &str) -> Session {
    let mut session = Session::new(Device::flex(), "flex", || 0.0);
    session.open(load(name, &Device::flex()));
    session
}

fn run(session: &mut Session, command: Command) -> Event {
    pollster::block_on(session.handle(command, &mut |_| {})).expect("works")
}

fn ask(session: &mut Session) -> Event {
    run(session, Command::Ask { prompt: fact().prompt, tokens: 12, top: 9 })
}

#[test]
fn an_edited_weight_answers_the_value_for_its_key() {
    let device = Device::flex();
    let random = |shape: [usize; 2]| Tensor::<2>::random(shape, Distribution::Normal(0.0, 1.0), &device);
    let (weight, key, whitened, missing) = (random([12, 12]), random([1, 12]), random([1, 12]), random([1, 12]));
    let delta = rank_one(whitened, key.clone(), missing.clone());
    let moved = values(key.clone().matmul(weight.clone() + delta.dense()) - key.matmul(weight));
    for (moved, missing) in moved.iter().zip(values(missing)) {
        assert!((moved - missing).abs() < 1e-4, "{moved} {missing}");
    }
}

#[test]
fn the_first_step_has_no_divergence_and_every_shift_stays_in_its_ball() {
    for name in MODELS {
        let loaded = load(name, &Device::flex());
        let templates = ["{}".to_owned(), "It is said. {}".to_owned()];
        let rows =
            FactRows::new(&loaded.tokenizer, &loaded.model, &fact(), &templates, FactToken::SubjectLast).unwrap();
        let prepared = Prepared::new(&loaded.model, &rows, 1).unwrap();
        let radius = 0.75 * f64::from(values((prepared.value() * prepared.value()).sum().sqrt())[0]);
        let spec = ValueSpec { steps: 8, lr: 0.5, weight_decay: 0.5, clamp: 0.75, kl: 0.0625 };
        let (delta, trace) = pollster::block_on(prepared.optimize(&loaded.model, spec, &mut |_| {})).unwrap();
        assert_eq!(trace[0].kl, 0.0, "{name}");
        assert!(trace.iter().all(|step| step.delta_norm <= radius * (1.0 + 1e-6)), "{name}: {trace:?} {radius}");
        assert!(f64::from(values((delta.clone() * delta).sum().sqrt())[0]) <= radius * (1.0 + 1e-6));
        assert!(trace.last().unwrap().nll < trace[0].nll, "{name}: the target becomes likelier");
    }
}

#[test]
fn the_first_update_moves_every_coordinate_by_the_learning_rate() {
    let loaded = load("gpt2-tiny", &Device::flex());
    let rows =
        FactRows::new(&loaded.tokenizer, &loaded.model, &fact(), &["{}".into()], FactToken::SubjectLast).unwrap();
    let prepared = Prepared::new(&loaded.model, &rows, 1).unwrap();
    let spec = ValueSpec { steps: 2, lr: 0.5, weight_decay: 0.0, clamp: 1e9, kl: 0.0 };
    let (delta, _) = pollster::block_on(prepared.optimize(&loaded.model, spec, &mut |_| {})).unwrap();
    for value in values(delta) {
        assert!((value.abs() - 0.5).abs() < 1e-3, "{value}");
    }
}

#[test]
fn a_model_is_a_value() {
    for name in MODELS {
        let model = load(name, &Device::flex()).model;
        let site = WeightSite { layer: 2, matrix: Matrix::MlpDown };
        let before = values(model.weight(site));
        let delta = Delta::Dense(model.weight(site).ones_like());
        let edited = model.apply(&[WeightDelta { site, delta }]).unwrap();
        assert_ne!(values(edited.weight(site)), before);
        assert_eq!(values(model.weight(site)), before);
        assert_eq!(values(model.apply(&[]).unwrap().weight(site)), before);
    }
}

#[test]
fn undo_restores_every_answer_bit_for_bit() {
    for name in MODELS {
        let mut session = session(name);
        let before = ask(&mut session);
        for regularizer in [Regularizer::None, Regularizer::Rect { keep: 0.4 }] {
            run(&mut session, Command::Edit { facts: vec![fact()], spec: spec(regularizer) });
        }
        assert_ne!(ask(&mut session), before, "{name}: the edits show");
        assert_eq!(run(&mut session, Command::Undo), Event::Undone { edits: 1 });
        assert_eq!(run(&mut session, Command::Undo), Event::Undone { edits: 0 });
        assert_eq!(ask(&mut session), before, "{name}");
    }
}

#[test]
fn an_exported_change_gives_the_same_model_again() {
    for name in MODELS {
        let mut first = session(name);
        run(&mut first, Command::Edit { facts: vec![fact()], spec: spec(Regularizer::Rect { keep: 0.4 }) });
        let bytes = pollster::block_on(first.export_delta()).unwrap();
        let mut second = first.fork();
        second.apply_delta("delta.safetensors", &bytes).unwrap();
        assert_eq!(ask(&mut first), ask(&mut second), "{name}");
    }
}

#[test]
fn the_same_seed_gives_the_same_report() {
    let sampled = || {
        let mut session = session("gpt2-tiny");
        let rome = RomeSpec { layers: Some(vec![1]), v_num_grad_steps: 4, ..RomeSpec::default() };
        let spec = EditSpec { editor: EditorSpec::Rome(rome), regularizer: Regularizer::Random { keep: 0.4 }, seed: 3 };
        run(&mut session, Command::Edit { facts: vec![fact()], spec })
    };
    assert_eq!(sampled(), sampled());
}

#[test]
fn an_edit_that_is_dropped_halfway_changes_nothing() {
    use std::{
        future::Future,
        pin::pin,
        task::{Context, Poll, Waker},
    };
    let mut session = session("gpt2-tiny");
    let before = ask(&mut session);
    let mut steps = 0;
    {
        let mut watch = |progress: Progress| steps += usize::from(matches!(progress, Progress::Optimizing { .. }));
        let command = Command::Edit { facts: vec![fact()], spec: spec(Regularizer::None) };
        let mut future = pin!(session.handle(command, &mut watch));
        let mut context = Context::from_waker(Waker::noop());
        for _ in 0..60 {
            assert!(matches!(future.as_mut().poll(&mut context), Poll::Pending), "every read gives way");
        }
    }
    assert!(steps >= 2, "the edit was under way: {steps}");
    assert_eq!(ask(&mut session), before);
}

#[test]
fn the_mean_key_and_the_prompt_key_write_the_fact_too() {
    let golden = Golden::open("gpt2-tiny");
    for key in [KeyChoice::Mixed, KeyChoice::Mean, KeyChoice::Prompt] {
        let mut session = session(golden.name);
        let mut spec = spec(Regularizer::None);
        let EditorSpec::Rome(rome) = &mut spec.editor;
        rome.key = key;
        let Event::Edited(report) = run(&mut session, Command::Edit { facts: vec![fact()], spec }) else {
            panic!("edits")
        };
        let fact = &report.facts[0];
        assert!(fact.after.p_new > fact.before.p_new, "{key:?}");
    }
}
