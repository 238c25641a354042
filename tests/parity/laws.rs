//! What must hold whatever the numbers are.

use burn::tensor::{Device, Distribution, Tensor, TensorData};
use std::sync::Arc;

use rectify_core::{
    Session, answer,
    edit::{
        Delta, Input, WeightDelta,
        moments::Moment,
        plan,
        rome::rank_one,
        value::{FactRows, Prepared},
    },
    metrics::{predict, scores},
    model::{Matrix, Model, WeightSite},
};
use rectify_protocol::{
    ArchitectureKind, Command, Contexts, EditSpec, EditorSpec, Event, Fact, FactToken, Guards, KeyChoice, Neighbor,
    Over, Progress, Regularizer, RomeSpec, ValueSpec,
};

use crate::golden::{self, Golden, MODELS, device, load, values};

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
        ..Fact::default()
    }
}

fn spec(regularizer: Regularizer) -> EditSpec {
    let contexts = Contexts::Given(vec!["{}".into(), "The city was founded in the north. {}".into()]);
    let value = ValueSpec { contexts, ..ValueSpec::default() };
    let rome = RomeSpec { layers: Some(vec![1]), value, ..RomeSpec::default() };
    EditSpec { regularizer, seed: 7, guards: Guards::NONE, ..EditSpec::new(EditorSpec::Rome(rome)) }
}

fn session(name: &str) -> Session {
    let mut session = Session::new(device(), "flex", || 0.0);
    session.open(load(name));
    session
}

fn run(session: &mut Session, command: Command) -> Event {
    pollster::block_on(session.handle(command, &mut |_| {})).expect("works")
}

fn ask(session: &mut Session) -> Event {
    run(session, Command::Ask { prompt: fact().prompt, tokens: 12, top: 9 })
}

#[golden::test]
fn an_edited_weight_answers_the_value_for_its_key() {
    let device = device();
    let random = |shape: [usize; 2]| Tensor::<2>::random(shape, Distribution::Normal(0.0, 1.0), &device);
    let (weight, key, whitened, missing) = (random([12, 12]), random([1, 12]), random([1, 12]), random([1, 12]));
    let wide = |tensor: &Tensor<2>| values(tensor.clone()).into_iter().map(f64::from).collect::<Vec<f64>>();
    let [left, right] = rank_one(&wide(&whitened), &wide(&key), &wide(&missing));
    let tensor = |values: Vec<f32>, shape: [usize; 2]| Tensor::<2>::from_data(TensorData::new(values, shape), &device);
    let delta = Delta::LowRank { left: tensor(left, [12, 1]), right: tensor(right, [1, 12]) };
    // What the edited weight answers is asked of the processor: a card's own products may round their factors.
    // Copied: where card and processor share memory, what is read may be the tensor's own, which an addition changes.
    let here = |tensor: Tensor<2>| {
        let shape = tensor.dims();
        Tensor::<2>::from_data(TensorData::new(values(tensor), shape), &Device::flex())
    };
    let (key, before, after) = (here(key), here(weight.clone()), here(weight + delta.dense()));
    let moved = values(key.clone().matmul(after) - key.matmul(before));
    for (moved, missing) in moved.iter().zip(values(missing)) {
        assert!((moved - missing).abs() < 1e-4, "{moved} {missing}");
    }
}

#[golden::test]
fn the_first_step_has_no_divergence_and_every_shift_stays_in_its_ball() {
    for name in MODELS {
        let loaded = load(name);
        let templates = ["{}".to_owned(), "It is said. {}".to_owned()];
        let rows =
            FactRows::new(&loaded.tokenizer, &loaded.model, &fact(), &templates, FactToken::SubjectLast).unwrap();
        let prepared = Prepared::new(&loaded.model, &[rows], 1).unwrap();
        let anchor = prepared.values();
        let radius = 0.75 * f64::from(values((anchor.clone() * anchor.clone()).sum().sqrt())[0]);
        let spec = ValueSpec { v_num_grad_steps: 8, clamp_norm_factor: 0.75, ..ValueSpec::default() };
        let (delta, trace) = pollster::block_on(prepared.optimize(&loaded.model, &anchor, &spec, &mut |_| {})).unwrap();
        assert_eq!(trace[0].kl, 0.0, "{name}");
        assert!(trace.iter().all(|step| step.delta_norm <= radius * (1.0 + 1e-6)), "{name}: {trace:?} {radius}");
        assert!(f64::from(values((delta.clone() * delta).sum().sqrt())[0]) <= radius * (1.0 + 1e-6));
        assert!(trace.last().unwrap().nll < trace[0].nll, "{name}: the target becomes likelier");
    }
}

#[golden::test]
fn the_first_update_moves_every_coordinate_by_the_learning_rate() {
    let loaded = load("gpt2-tiny");
    let rows =
        FactRows::new(&loaded.tokenizer, &loaded.model, &fact(), &["{}".into()], FactToken::SubjectLast).unwrap();
    let prepared = Prepared::new(&loaded.model, &[rows], 1).unwrap();
    let spec = ValueSpec {
        v_num_grad_steps: 2,
        v_weight_decay: 0.0,
        clamp_norm_factor: 1e9,
        kl_factor: 0.0,
        ..ValueSpec::default()
    };
    let anchor = prepared.values();
    let (delta, _) = pollster::block_on(prepared.optimize(&loaded.model, &anchor, &spec, &mut |_| {})).unwrap();
    for value in values(delta) {
        assert!((value.abs() - 0.5).abs() < 1e-3, "{value}");
    }
}

#[golden::test]
fn a_model_is_a_value() {
    for name in MODELS {
        let model = load(name).model;
        let site = WeightSite { layer: 2, matrix: Matrix::MlpDown };
        let before = values(model.weight(site));
        let delta = Delta::Dense(model.weight(site).ones_like());
        let edited = model.apply(&[WeightDelta { site, delta }]).unwrap();
        assert_ne!(values(edited.weight(site)), before);
        assert_eq!(values(model.weight(site)), before);
        assert_eq!(values(model.apply(&[]).unwrap().weight(site)), before);
    }
}

#[golden::test]
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

/// The same edit by another editor; the identity stands in for statistics.
fn edit_by(session: &mut Session, editor: &str, regularizer: Regularizer) -> rectify_core::Result<Event> {
    for layer in 0..4 {
        session.approximate_moment(layer).unwrap();
    }
    let family = session.info().unwrap().architecture;
    let mut editor = EditorSpec::published(editor, family).unwrap();
    if let Some(value) = editor.value_mut() {
        value.contexts = Contexts::Given(vec!["{}".into(), "The city was founded in the north. {}".into()]);
    }
    if let EditorSpec::Memit(memit) = &mut editor {
        memit.mom2_update_weight = 1.0;
    }
    if let EditorSpec::AlphaEdit(alphaedit) = &mut editor {
        alphaedit.nullspace_threshold = 2.0; // the identity leaves every direction free
    }
    let spec = EditSpec { regularizer, guards: Guards::NONE, ..EditSpec::new(editor) };
    pollster::block_on(session.handle(Command::Edit { facts: vec![fact()], spec }, &mut |_| {}))
}

#[golden::test]
fn every_editor_that_needs_no_training_makes_the_target_likelier_and_can_be_undone() {
    for name in MODELS {
        // KN rewrites what it finds and promises nothing, MEND must be trained, and fine-tuning has laws of its own.
        let others = ["kn", "mend", "ft"];
        for editor in EditorSpec::METHODS.iter().filter(|method| !others.contains(method)) {
            let mut session = session(name);
            let before = ask(&mut session);
            let Ok(Event::Edited(report)) = edit_by(&mut session, editor, Regularizer::None) else {
                panic!("{editor}")
            };
            let fact = &report.facts[0];
            assert!(fact.after.p_new > fact.before.p_new, "{name} {editor}: {:?} {:?}", fact.before, fact.after);
            assert!(report.weights.iter().all(|change| change.frobenius > 0.0), "{name} {editor}");
            assert_ne!(ask(&mut session), before, "{name} {editor}");
            run(&mut session, Command::Undo);
            assert_eq!(ask(&mut session), before, "{name} {editor}");
        }
    }
}

#[golden::test]
fn regularising_anew_equals_editing_with_that_regularizer() {
    for regularizer in [Regularizer::Rect { keep: 0.4 }, Regularizer::Random { keep: 0.2 }, Regularizer::None] {
        let mut direct = session("gpt2-tiny");
        edit_by(&mut direct, "memit", regularizer).unwrap();
        let mut later = session("gpt2-tiny");
        edit_by(&mut later, "memit", Regularizer::Rect { keep: 0.7 }).unwrap();
        let command = Command::Regularize { regularizer, over: Over::Each, seed: 0 };
        let Event::Changed(weights) = run(&mut later, command) else { panic!("changes") };
        assert!(!weights.is_empty());
        assert_eq!(ask(&mut direct), ask(&mut later), "{regularizer:?}");
        assert_eq!(run(&mut later, Command::Undo), Event::Undone { edits: 0 });
    }
}

/// Were the entries the same, 40 % of them would have changed after two edits; so there are 64 %.
#[golden::test]
fn each_edit_of_a_sequence_draws_its_own_entries() {
    let mut session = session("gpt2-tiny");
    let random = Regularizer::Random { keep: 0.4 };
    let median = |event: Event| {
        let Event::Changed(weights) = event else { panic!("changes") };
        weights[0].percentiles.iter().find(|percentile| percentile.share == 0.5).expect("a median").value
    };
    for expected_zero in [true, false] {
        run(&mut session, Command::Edit { facts: vec![fact()], spec: spec(random) });
        assert_eq!(median(run(&mut session, Command::Changes)) == 0.0, expected_zero);
    }
    let again = Command::Regularize { regularizer: random, over: Over::Each, seed: spec(random).seed };
    assert!(median(run(&mut session, again)) > 0.0, "also when they are drawn anew");
}

#[golden::test]
fn the_sum_of_a_sequence_can_be_pruned() {
    let mut session = session("gpt2-tiny");
    for _ in 0..2 {
        edit_by(&mut session, "rome", Regularizer::None).unwrap();
    }
    let size = |event| match event {
        Event::Changed(weights) => weights.iter().map(|change| change.frobenius).sum::<f64>(),
        other => panic!("{other:?}"),
    };
    let full = size(run(&mut session, Command::Changes));
    let prune = |base| Command::Regularize { regularizer: Regularizer::Prune { base }, over: Over::Total, seed: 0 };
    let pruned = size(run(&mut session, prune(std::f64::consts::E)));
    assert!(pruned <= full, "{pruned} {full}");
    run(&mut session, Command::Undo);
    run(&mut session, Command::Undo);
    assert!(pollster::block_on(session.handle(Command::Undo, &mut |_| {})).is_err());
}

#[golden::test]
fn a_later_edit_holds_on_to_the_keys_of_earlier_ones() {
    let mut session = session("gpt2-tiny");
    let edit = |session: &mut Session, history| {
        let mut editor = EditorSpec::published("memit", ArchitectureKind::Gpt2).unwrap();
        editor.value_mut().unwrap().contexts = Contexts::Given(vec!["{}".into()]);
        if let EditorSpec::Memit(memit) = &mut editor {
            (memit.mom2_update_weight, memit.history) = (1e-3, history);
        }
        let spec = EditSpec { guards: Guards::NONE, ..EditSpec::new(editor) };
        run(session, Command::Edit { facts: vec![fact()], spec })
    };
    for layer in 0..4 {
        session.approximate_moment(layer).unwrap();
    }
    edit(&mut session, true);
    let Event::Edited(held) = edit(&mut session, true) else { panic!("edits") };
    run(&mut session, Command::Undo);
    let Event::Edited(free) = edit(&mut session, false) else { panic!("edits") };
    // The same fact again: its key is held where it is, so the second edit has less to say.
    assert!(held.delta_norm < 0.75 * free.delta_norm, "{} {}", held.delta_norm, free.delta_norm);
}

#[golden::test]
fn what_would_ruin_the_model_is_given_up_and_changes_nothing() {
    let mut session = session("gpt2-tiny");
    let before = ask(&mut session);
    let refused = |session: &mut Session, guards| {
        let spec = EditSpec { guards, ..spec(Regularizer::None) };
        pollster::block_on(session.handle(Command::Edit { facts: vec![fact()], spec }, &mut |_| {}))
    };
    let norm = Guards { max_relative_norm: Some(1e-6), ..Guards::NONE };
    let perplexity = Guards { max_perplexity_ratio: Some(1e-6), ..Guards::NONE };
    for (guards, part) in [(norm, "max_relative_norm is 0.000001"), (perplexity, "max_perplexity_ratio")] {
        let error = refused(&mut session, guards).unwrap_err().to_string();
        assert!(error.contains(part) && error.contains("Nothing was changed"), "{error}");
        assert_eq!(ask(&mut session), before);
    }
    let Ok(Event::Edited(report)) = refused(&mut session, Guards::default()) else { panic!("an ordinary edit passes") };
    let [before, after] = report.perplexity.expect("a guard looked");
    assert!(before > 1.0 && after > 1.0);
}

#[golden::test]
fn facts_that_cannot_be_a_batch_are_named() {
    let mut session = session("gpt2-tiny");
    let mut check = |facts: Vec<Fact>, editor: &str, part: &str| {
        let editor = EditorSpec::published(editor, ArchitectureKind::Gpt2).unwrap();
        let command = Command::Edit { facts, spec: EditSpec::new(editor) };
        let error = pollster::block_on(session.handle(command, &mut |_| {})).unwrap_err().to_string();
        assert!(error.contains(part), "{error}\nlacks {part:?}");
    };
    let other = Fact { target_new: "Dutch".into(), ..fact() };
    let alone = Fact { prompt: "Danielle Darrieux".into(), ..fact() };
    check(vec![], "memit", "there is no fact to edit");
    check(vec![fact(), fact()], "memit", "facts 0 and 1 of the batch have the same prompt");
    check(vec![fact(), other.clone()], "memit", "different targets");
    check(vec![fact(), other], "rome", "rome writes one fact per operation");
    check(vec![alone], "memit", "nothing but the subject");
    check(vec![fact()], "memit", "no statistics of layer");
}

#[golden::test]
fn a_singular_second_moment_is_named() {
    let golden = Golden::open("gpt2-tiny");
    let loaded = golden.model();
    let moments = (0..4).map(|layer| (layer, Arc::new(Moment::given(vec![0.0; 256 * 256], 256, 7)))).collect();
    let input = Input {
        model: &loaded.model,
        tokenizer: &loaded.tokenizer,
        templates: &["{}".into()],
        moments: &moments,
        history: &[],
        hypernetwork: None,
    };
    for editor in ["memit", "emmet"] {
        let mut editor = EditorSpec::published(editor, ArchitectureKind::Gpt2).unwrap();
        *editor.layers_mut().unwrap() = Some(vec![1]);
        let error = pollster::block_on(plan(&input, &[fact()], &editor, &mut |_| {})).err().expect("refused");
        assert!(error.to_string().contains("not positive definite"), "{error}");
    }
}

#[golden::test]
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

#[golden::test]
fn the_same_seed_gives_the_same_report() {
    let sampled = || {
        let mut session = session("gpt2-tiny");
        let value = ValueSpec { v_num_grad_steps: 4, ..ValueSpec::default() };
        let editor = EditorSpec::Rome(RomeSpec { layers: Some(vec![1]), value, ..RomeSpec::default() });
        let spec = EditSpec { regularizer: Regularizer::Random { keep: 0.4 }, seed: 3, ..EditSpec::new(editor) };
        run(&mut session, Command::Edit { facts: vec![fact()], spec })
    };
    assert_eq!(sampled(), sampled());
}

#[golden::test]
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

#[golden::test]
fn the_mean_key_and_the_prompt_key_write_the_fact_too() {
    let golden = Golden::open("gpt2-tiny");
    for key in [KeyChoice::Mixed, KeyChoice::Mean, KeyChoice::Prompt] {
        let mut session = session(golden.name);
        let mut spec = spec(Regularizer::None);
        let EditorSpec::Rome(rome) = &mut spec.editor else { unreachable!() };
        rome.key = key;
        let Event::Edited(report) = run(&mut session, Command::Edit { facts: vec![fact()], spec }) else {
            panic!("edits")
        };
        let fact = &report.facts[0];
        assert!(fact.after.p_new > fact.before.p_new, "{key:?}");
    }
}

/// Variants of a model, whose first `intact` blocks they have in common.
fn variants(model: &Model, intact: usize) -> Vec<Model> {
    let changed = |layer: usize, step: f64| {
        let site = WeightSite { layer, matrix: Matrix::MlpDown };
        let delta = Delta::Dense(model.weight(site) * step);
        model.apply(&[WeightDelta { site, delta }]).expect("fits")
    };
    let last = model.shape().layers - 1;
    let mut all = vec![model.clone()];
    if intact <= last {
        all.extend([changed(intact, 0.5), changed(last, -2.0), changed(intact, -1.5)]);
    } else {
        all.push(model.clone());
    }
    assert_eq!(all.iter().map(Model::intact).min(), Some(intact));
    all
}

#[golden::test]
fn variants_that_are_asked_together_answer_as_each_alone() {
    for golden in MODELS.map(Golden::open) {
        let loaded = golden.model();
        let prompts: Vec<String> =
            ["The mother tongue of", "The mother tongue of Danielle Darrieux is", "The sea"].map(String::from).to_vec();
        for intact in 0..=loaded.model.shape().layers {
            let models = variants(&loaded.model, intact);
            let ask = |models: &[Model]| {
                let mut silent = |_| {};
                let answered = pollster::block_on(answer(&loaded, models, &prompts, 9, &mut silent)).expect("answers");
                let predicted = pollster::block_on(predict(models, &loaded.tokenizer, &fact())).expect("predicts");
                (answered, predicted)
            };
            let (together, predicted) = ask(&models);
            let mut tokens = 0;
            for (i, model) in models.iter().enumerate() {
                let (alone, mut expected) = ask(std::slice::from_ref(model));
                let case = format!("{}: model {i}, {intact} blocks in common", golden.name);
                assert_eq!(together.continuations[i], alone.continuations[0], "{case}");
                let expected = expected.remove(0);
                assert_eq!(scores(&predicted[0], &predicted[i]), scores(&predicted[0], &expected), "{case}");
                tokens += alone.tokens;
            }
            assert_eq!(together.tokens, tokens);
        }
    }
}
