use std::sync::Arc;

use rectify_core::{
    edit::{
        Delta, Input,
        moments::{Accumulator, Corpus},
        rome::plan,
        value::{FactRows, Prepared},
    },
    model::LoadedModel,
};
use rectify_protocol::{FactToken, RomeSpec};
use serde_json::Value;

use crate::golden::{self, Golden, MODELS, check_trace, fact, ids, requests, templates, value_spec, values};

/// Recommended for keys, outputs and `u`; for δ, v and ΔW.
pub const KEYS: f64 = 3e-5;
pub const VALUES: f64 = 1e-4;

struct Setting {
    golden: Golden,
    loaded: LoadedModel,
    templates: Vec<String>,
    layer: usize,
}

fn settings() -> impl Iterator<Item = Setting> {
    MODELS.into_iter().map(Golden::open).map(|golden| {
        let rome = &golden.json["rome"];
        let layer = rome["layer"].as_u64().expect("layer") as usize;
        Setting { loaded: golden.model(), templates: templates(rome), layer, golden }
    })
}

impl Setting {
    fn requests(&self) -> Vec<Value> {
        requests(&self.golden.json["rome"])
    }
}

#[golden::test]
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

#[golden::test]
fn keys_and_values_are_the_reference_s() {
    for setting in settings() {
        let Setting { golden, loaded, templates, layer } = &setting;
        for (i, request) in setting.requests().iter().enumerate() {
            let rows =
                FactRows::new(&loaded.tokenizer, &loaded.model, &fact(request), templates, FactToken::SubjectLast)
                    .expect("a valid fact");
            let prepared = Prepared::new(&loaded.model, &[rows], *layer).expect("prepares");
            golden.check(&format!("rome.r{i}.keys"), &values(prepared.keys.clone()), KEYS);
            golden.check(&format!("rome.r{i}.k_bar"), &values(prepared.keys.clone().mean_dim(0)), KEYS);
            golden.check(&format!("rome.r{i}.k_p"), &values(prepared.keys.clone().narrow(0, 0, 1)), KEYS);
            golden.check(&format!("rome.r{i}.y_p"), &values(prepared.outputs.clone().narrow(0, 0, 1)), KEYS);
            golden.check(&format!("rome.r{i}.t0"), &values(prepared.values()), KEYS);
            let spec = value_spec(&golden.json["rome"]);
            let found = async { prepared.optimize(&loaded.model, &prepared.values(), &spec, &mut |_| {}).await };
            let (shift, _) = pollster::block_on(found).expect("a value");
            golden.check(&format!("rome.r{i}.delta"), &values(shift), VALUES);
        }
    }
}

#[golden::test]
fn an_edit_is_the_reference_s_with_and_without_covariance() {
    for setting in settings() {
        let Setting { golden, loaded, templates, layer } = &setting;
        let moments = [(*layer, Arc::new(golden.moment(*layer)))].into();
        for (i, request) in setting.requests().iter().enumerate() {
            for (variant, whitened) in [("plain", false), ("cinv", true)] {
                let input = Input {
                    model: &loaded.model,
                    tokenizer: &loaded.tokenizer,
                    templates,
                    moments: &moments,
                    history: &[],
                    hypernetwork: None,
                };
                let spec = RomeSpec {
                    layers: Some(vec![*layer]),
                    mom2_adjustment: whitened,
                    value: value_spec(&golden.json["rome"]),
                    ..RomeSpec::default()
                };
                let planned = pollster::block_on(plan(&input, &fact(request), &spec, &mut |_| {})).expect("an edit");
                check_trace(golden, &format!("rome.r{i}.trace"), &planned.trace);
                let [planned] = planned.deltas.as_slice() else { panic!("ROME changes one matrix") };

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

#[golden::test]
fn a_second_moment_is_the_reference_s_however_it_is_interrupted() {
    for Setting { golden, loaded, layer, .. } in settings() {
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
        let corpus = Corpus { name: "golden".into(), hash: "0".into() };
        let mut sums = Accumulator::new(&loaded, &[layer]).expect("a layer");
        for group in documents.chunks(70) {
            pollster::block_on(sums.add(&loaded, group, usize::MAX, &mut |_| {})).expect("adds");
            // As after a kill: only what was written down goes on.
            let bytes = sums.to_bytes(&loaded, &corpus).expect("a file");
            sums = Accumulator::from_bytes("sums", &bytes, &loaded, &[layer], &corpus).expect("reads").expect("ours");
        }
        assert_eq!((sums.tokens(), sums.documents()), (ids.len(), documents.len()));
        let (_, moment) = sums.moments().expect("tokens").remove(0);
        let ours: Vec<f32> = moment.matrix().iter().map(|value| *value as f32).collect();
        golden.check(&format!("cov.l{layer}.C"), &ours, 1e-5);

        let bytes = sums.to_bytes(&loaded, &corpus).expect("a file");
        let other = Corpus { hash: "1".into(), ..corpus };
        assert!(Accumulator::from_bytes("sums", &bytes, &loaded, &[layer], &other).expect("reads").is_none());
    }
}
