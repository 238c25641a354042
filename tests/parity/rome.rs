use rectify_core::{
    edit::{
        Delta,
        moments::accumulate,
        rome::{Input, plan},
        value::{FactRows, Prepared},
    },
    model::LoadedModel,
};
use rectify_protocol::{Fact, FactToken, RomeSpec};
use serde_json::Value;

use crate::golden::{Golden, MODELS, strings, values};

/// Recommended for keys, outputs and `u`; for δ, v and ΔW; for the loss traces.
const KEYS: f64 = 3e-5;
const VALUES: f64 = 1e-4;
const TRACE: f64 = 2e-5;

fn spec(golden: &Golden) -> RomeSpec {
    let hparams = &golden.json["rome"]["hparams"];
    let number = |name: &str| hparams[name].as_f64().unwrap_or_else(|| panic!("{name}"));
    RomeSpec {
        v_num_grad_steps: number("v_num_grad_steps") as usize,
        v_lr: number("v_lr"),
        v_weight_decay: number("v_weight_decay"),
        clamp_norm_factor: number("clamp_norm_factor"),
        kl_factor: number("kl_factor"),
        ..RomeSpec::default()
    }
}

fn fact(request: &Value) -> Fact {
    let text = |name: &str| request[name].as_str().expect("text").to_owned();
    Fact { subject: text("subject"), prompt: text("prompt"), target_new: text("target_new"), ..Fact::default() }
}

fn ids(list: &Value) -> Vec<u32> {
    list.as_array().expect("a list").iter().map(|id| id.as_u64().expect("an id") as u32).collect()
}

struct Setting {
    golden: Golden,
    loaded: LoadedModel,
    templates: Vec<String>,
    layer: usize,
}

fn settings() -> impl Iterator<Item = Setting> {
    MODELS.into_iter().map(Golden::open).map(|golden| {
        let rome = &golden.json["rome"];
        let (templates, layer) = (strings(&rome["templates"]), rome["layer"].as_u64().expect("layer") as usize);
        Setting { loaded: golden.model(), templates, layer, golden }
    })
}

impl Setting {
    fn requests(&self) -> Vec<Value> {
        self.golden.json["rome"]["requests"].as_array().expect("requests").clone()
    }
}

#[test]
fn a_fact_becomes_the_reference_s_rows() {
    for setting in settings() {
        for request in setting.requests() {
            let loaded = &setting.loaded;
            let rows = FactRows::new(
                &loaded.tokenizer,
                &loaded.model,
                &fact(&request),
                &setting.templates,
                FactToken::SubjectLast,
            )
            .expect("a valid fact");
            assert_eq!(rows.target, ids(&request["target_ids"]));
            let expected = request["rows"].as_array().expect("rows");
            let lookups = ids(&request["lookup_idxs"]);
            for (i, row) in rows.contexts.iter().enumerate() {
                assert_eq!(row.ids, ids(&expected[i]), "{} row {i}", setting.golden.name);
                assert_eq!(row.lookup, lookups[i] as usize, "{} row {i}", setting.golden.name);
            }
            // The reference's last row goes on with " is a", which its subject's token cannot see.
            let subject = ids(expected.last().expect("rows"));
            assert_eq!(rows.subject.ids, subject[..=rows.subject.lookup]);
            assert_eq!(rows.subject.lookup, *lookups.last().expect("rows") as usize);
        }
    }
}

#[test]
fn keys_and_values_are_the_reference_s() {
    for setting in settings() {
        let Setting { golden, loaded, templates, layer } = &setting;
        for (i, request) in setting.requests().iter().enumerate() {
            let rows =
                FactRows::new(&loaded.tokenizer, &loaded.model, &fact(request), templates, FactToken::SubjectLast)
                    .expect("a valid fact");
            let prepared = Prepared::new(&loaded.model, &rows, *layer).expect("prepares");
            golden.check(&format!("rome.r{i}.keys"), &values(prepared.keys.clone()), KEYS);
            golden.check(&format!("rome.r{i}.k_bar"), &values(prepared.keys.clone().mean_dim(0)), KEYS);
            golden.check(&format!("rome.r{i}.k_p"), &values(prepared.keys.clone().narrow(0, 0, 1)), KEYS);
            golden.check(&format!("rome.r{i}.y_p"), &values(prepared.outputs.clone().narrow(0, 0, 1)), KEYS);
            golden.check(&format!("rome.r{i}.t0"), &values(prepared.value()), KEYS);
        }
    }
}

#[test]
fn an_edit_is_the_reference_s_with_and_without_covariance() {
    for setting in settings() {
        let Setting { golden, loaded, templates, layer } = &setting;
        let moment = covariance(&setting);
        for (i, request) in setting.requests().iter().enumerate() {
            for (variant, moment) in [("plain", None), ("cinv", Some(&moment))] {
                let input = Input { model: &loaded.model, tokenizer: &loaded.tokenizer, templates, moment };
                let spec = RomeSpec { mom2_adjustment: moment.is_some(), ..spec(golden) };
                let (planned, trace) =
                    pollster::block_on(plan(&input, &fact(request), *layer, &spec, &mut |_| {})).expect("an edit");

                let expected = golden.f64s(&format!("rome.r{i}.trace"));
                assert_eq!(trace.len() * 6, expected.len(), "{} r{i}: evaluations", golden.name);
                for (step, theirs) in trace.iter().zip(expected.chunks(6)) {
                    let ours = [step.nll, step.kl, step.weight_decay, step.loss(), step.delta_norm, step.p_target];
                    for (column, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
                        let allowed = if column < 4 { 1e-4 } else { TRACE * theirs.abs().max(1.0) };
                        assert!(
                            (ours - theirs).abs() <= allowed,
                            "{} r{i} step {} column {column}: {ours} {theirs}",
                            golden.name,
                            step.step
                        );
                    }
                }

                let Delta::LowRank { left, right } = &planned.delta else { panic!("ROME is rank one") };
                let case = format!("rome.r{i}.{variant}");
                golden.check(&format!("{case}.u"), &values(left.clone()), KEYS);
                golden.check(&format!("{case}.v"), &values(right.clone()), VALUES);
                let dense = planned.delta.dense();
                let stored = if loaded.model.stores_transposed() { dense.transpose() } else { dense };
                golden.check(&format!("{case}.dW"), &values(stored), VALUES);
            }
        }
    }
}

/// The golden token sequences through our own accumulation, compared with the golden moment.
fn covariance(setting: &Setting) -> rectify_core::edit::moments::Moment {
    let Setting { golden, loaded, layer, .. } = setting;
    let ids = golden.ids("cov.ids");
    let mut rest = ids.as_slice();
    let documents: Vec<Vec<u32>> = golden
        .ids("cov.lens")
        .iter()
        .map(|len| {
            let (document, after) = rest.split_at(*len as usize);
            rest = after;
            document.to_vec()
        })
        .collect();
    let moments =
        pollster::block_on(accumulate(loaded, &documents, &[*layer], usize::MAX, &mut |_| {})).expect("averages");
    let moment = moments.into_iter().next().expect("one layer");
    let ours: Vec<f32> = moment.matrix().iter().map(|value| *value as f32).collect();
    golden.check(&format!("cov.l{layer}.C"), &ours, 1e-5);
    assert_eq!(moment.tokens(), ids.len());
    moment
}
