use std::collections::BTreeMap;

use rectify_core::{
    Result, Session,
    edit::{Input, Plan, plan},
    model::{LoadedModel, Matrix, Model},
    tokenizer::Followed,
};
use rectify_protocol::{Command, EditSpec, EditorSpec, Event, Fact, FtObjective, FtSpec, Guards, Progress, Step};

use crate::golden::{self, MODELS, device, load, values};

const OBJECTIVES: [FtObjective; 2] = [FtObjective::PromptLast, FtObjective::TargetNew];

fn facts() -> Vec<Fact> {
    let fact = |subject: &str, prompt: &str, target: &str| Fact {
        subject: subject.into(),
        prompt: prompt.into(),
        target_new: target.into(),
        ..Fact::default()
    };
    vec![
        fact("Danielle Darrieux", "The mother tongue of Danielle Darrieux is", "English"),
        fact("Saint Petersburg", "The twin city of the old Saint Petersburg is", "Lisbon"),
        fact("Rome", "Rome is in", "France"),
    ]
}

fn spec(objective: FtObjective) -> FtSpec {
    FtSpec { layers: Some(vec![1]), objective, num_steps: 8, lr: 1e-3, norm_constraint: Some(3e-3) }
}

fn planned(loaded: &LoadedModel, facts: &[Fact], spec: &FtSpec) -> Result<Plan> {
    let moments = BTreeMap::new();
    let input = Input {
        model: &loaded.model,
        tokenizer: &loaded.tokenizer,
        templates: &[],
        moments: &moments,
        history: &[],
        hypernetwork: None,
    };
    pollster::block_on(plan(&input, facts, &EditorSpec::Ft(spec.clone()), &mut |_| {}))
}

fn of_fact(trace: &[Step], fact: usize) -> Vec<f64> {
    trace.iter().filter(|step| step.fact == fact).map(|step| step.nll).collect()
}

/// How far the entries of the change have moved: the largest of each.
fn largest(plan: &Plan) -> Vec<f32> {
    let largest = |entries: Vec<f32>| entries.iter().fold(0.0f32, |max, entry| max.max(entry.abs()));
    plan.deltas.iter().map(|change| largest(values(change.delta.dense()))).collect()
}

#[golden::test]
fn the_loss_falls_and_no_entry_leaves_the_constraint() {
    for name in MODELS {
        let loaded = load(name);
        for objective in OBJECTIVES {
            let spec = FtSpec { layers: Some(vec![1, 3]), ..spec(objective) };
            let planned = planned(&loaded, &facts(), &spec).expect("trains");
            assert_eq!(planned.trace.len(), facts().len() * spec.num_steps, "{name}");
            for fact in 0..facts().len() {
                let nll = of_fact(&planned.trace, fact);
                assert!(nll[nll.len() - 1] < nll[0] - 0.01, "{name} {objective:?} fact {fact}: {nll:?}");
            }
            let sites: Vec<_> = planned.deltas.iter().map(|change| (change.site.layer, change.site.matrix)).collect();
            assert_eq!(sites, [(1, Matrix::MlpDown), (3, Matrix::MlpDown)], "{name}");
            assert!(largest(&planned).iter().all(|moved| *moved == 3e-3), "{name}: {:?}", largest(&planned));
        }
    }
}

#[golden::test]
fn the_first_step_moves_entries_by_the_learning_rate() {
    for name in MODELS {
        let loaded = load(name);
        for objective in OBJECTIVES {
            let spec = FtSpec { num_steps: 1, norm_constraint: None, ..spec(objective) };
            let planned = planned(&loaded, &facts()[..1], &spec).expect("trains");
            assert!((largest(&planned)[0] - 1e-3).abs() < 1e-5, "{name}: {:?}", largest(&planned));
        }
    }
}

#[golden::test]
fn a_fact_in_a_batch_has_the_loss_it_has_alone() {
    for name in MODELS {
        let loaded = load(name);
        for objective in OBJECTIVES {
            let spec = FtSpec { num_steps: 1, ..spec(objective) };
            let together = planned(&loaded, &facts(), &spec).expect("trains");
            for (i, fact) in facts().iter().enumerate() {
                let alone = planned(&loaded, std::slice::from_ref(fact), &spec).expect("trains");
                let (ours, expected) = (together.trace[i].nll, alone.trace[0].nll);
                assert!((ours - expected).abs() < 1e-5, "{name} {objective:?} fact {i}: {ours} {expected}");
            }
        }
    }
}

/// `−(1/T) Σ log p(target)` of a fact, from the model's own scoring of continuations.
fn nll(loaded: &LoadedModel, model: &Model, fact: &Fact) -> f64 {
    use rectify_core::model::generate::Scored;
    let Followed { prompt, target } = loaded.tokenizer.followed(&fact.prompt, &fact.target_new).expect("encodes");
    let row = Scored { from: prompt.len(), ids: [prompt, target].concat() };
    let scores = pollster::block_on(model.score(&[row])).expect("fits").remove(0);
    -scores.iter().map(|score| score.log_p).sum::<f64>() / scores.len() as f64
}

#[golden::test]
fn what_is_trained_on_is_the_likelihood_of_the_target() {
    for name in MODELS {
        let loaded = load(name);
        let planned = planned(&loaded, &facts(), &spec(FtObjective::TargetNew)).expect("trains");
        let edited = loaded.model.apply(&planned.deltas).expect("fits");
        for (i, fact) in facts().iter().enumerate() {
            let trained = of_fact(&planned.trace, i);
            let before = nll(&loaded, &loaded.model, fact);
            assert!((trained[0] - before).abs() < 1e-5, "{name} fact {i}: {} {before}", trained[0]);
            assert!(nll(&loaded, &edited, fact) < before - 0.01, "{name} fact {i}");
        }
    }
}

#[golden::test]
fn training_ends_once_the_targets_are_known() {
    for name in MODELS {
        let loaded = load(name);
        let spec = FtSpec { num_steps: 60, lr: 5e-3, norm_constraint: None, ..spec(FtObjective::TargetNew) };
        let first = planned(&loaded, &facts()[..1], &spec).expect("trains");
        let last = first.trace[first.trace.len() - 1];
        assert!(first.trace.len() < 60 && last.nll < 1e-2, "{name}: {last:?}");

        let known = LoadedModel { model: loaded.model.apply(&first.deltas).expect("fits"), ..loaded };
        let again = planned(&known, &facts()[..1], &spec).expect("plans");
        assert_eq!((again.trace.len(), largest(&again)[0]), (1, 0.0), "{name}");
        assert!(again.notes[0].contains("knew the targets already"), "{name}: {:?}", again.notes);
    }
}

#[golden::test]
fn what_cannot_be_trained_on_is_said() {
    let loaded = load("gpt2-tiny");
    let refused =
        |fact: Fact| planned(&loaded, &[fact], &spec(FtObjective::TargetNew)).err().expect("refused").to_string();
    let fact = || facts().remove(0);
    assert!(refused(Fact { target_new: " ".into(), ..fact() }).contains("target_new is empty"));
    assert!(refused(Fact { target_new: "word ".repeat(200), ..fact() }).contains("context"));
    let beyond = FtSpec { layers: Some(vec![4]), ..spec(FtObjective::TargetNew) };
    assert!(planned(&loaded, &facts(), &beyond).err().expect("refused").to_string().contains("layer 4 does not exist"));
}

#[golden::test]
fn a_session_trains_several_facts_at_once() {
    for name in MODELS {
        let mut session = Session::new(device(), "flex", || 0.0);
        session.open(load(name));
        let spec = FtSpec { layers: None, lr: 2e-3, norm_constraint: None, ..spec(FtObjective::TargetNew) };
        let spec = EditSpec { guards: Guards::NONE, ..EditSpec::new(EditorSpec::Ft(spec)) };
        let mut evaluations = 0;
        let mut watch = |progress| evaluations += usize::from(matches!(progress, Progress::Optimizing { .. }));
        let command = Command::Edit { facts: facts(), spec };
        let Event::Edited(report) = pollster::block_on(session.handle(command, &mut watch)).expect("edits") else {
            panic!("a report")
        };
        assert_eq!(evaluations, report.trace.len(), "{name}");
        for fact in &report.facts {
            assert!(fact.after.p_new > fact.before.p_new, "{name}: {fact:?}");
        }
        let Event::Undone { edits } = pollster::block_on(session.handle(Command::Undo, &mut |_| {})).expect("undoes")
        else {
            panic!("undone")
        };
        assert_eq!(edits, 0, "{name}");
    }
}
