use std::sync::Arc;

use burn::tensor::Tensor;
use faer::Mat;
use rectify_core::{
    edit::{
        Delta, Input, WeightDelta,
        keys::Walk,
        memit::{Weights, closed_form},
        plan,
        value::{FactRows, Prepared, targets_of_states},
    },
    model::{LoadedModel, Matrix, WeightSite},
};
use rectify_protocol::{EditorSpec, Fact, FactToken, MemitSpec};

use crate::golden::{self, Golden, MODELS, check_trace, fact, requests, templates, value_spec, values};

/// Recommended for everything of MEMIT.
pub const TOLERANCE: f64 = 2e-4;

struct Setting {
    golden: Golden,
    loaded: LoadedModel,
    templates: Vec<String>,
    layers: Vec<usize>,
    facts: Vec<Fact>,
    rows: Vec<FactRows>,
}

fn settings() -> impl Iterator<Item = Setting> {
    MODELS.into_iter().map(Golden::open).map(|golden| {
        let memit = &golden.json["memit"];
        let layers = memit["layers"].as_array().expect("layers").iter();
        let layers = layers.map(|layer| layer.as_u64().expect("a layer") as usize).collect();
        let (loaded, templates) = (golden.model(), templates(memit));
        let facts: Vec<Fact> = requests(memit).iter().map(fact).collect();
        let rows = facts.iter().map(|fact| {
            FactRows::new(&loaded.tokenizer, &loaded.model, fact, &templates, FactToken::SubjectLast).expect("valid")
        });
        let rows = rows.collect();
        Setting { loaded, templates, layers, facts, rows, golden }
    })
}

/// A column for each fact, as the golden arrays have it.
fn columns(rows: Tensor<2>) -> Vec<f32> {
    values(rows.transpose())
}

fn host(golden: &Golden, array: &str) -> Mat<f64> {
    let [rows, columns] = golden.shape(array)[..] else { panic!("{array} is a matrix") };
    let numbers = golden.f64s(array);
    Mat::from_fn(rows, columns, |i, j| numbers[i * columns + j])
}

fn flat(matrix: &Mat<f64>) -> Vec<f32> {
    (0..matrix.nrows()).flat_map(|i| (0..matrix.ncols()).map(move |j| matrix[(i, j)] as f32)).collect()
}

#[golden::test]
fn values_found_in_one_batch_are_those_found_one_by_one() {
    for Setting { golden, loaded, layers, rows, .. } in settings() {
        let spec = value_spec(&golden.json["memit"]);
        let last = *layers.last().expect("layers");
        let (z, trace) =
            pollster::block_on(targets_of_states(&loaded.model, &rows, last, &spec, &mut |_| {})).expect("values");
        golden.check("memit.Z", &columns(z), TOLERANCE);
        let prepared = Prepared::new(&loaded.model, &rows, last).expect("prepares");
        let found = async { prepared.optimize(&loaded.model, &prepared.states, &spec, &mut |_| {}).await };
        let (shifts, _) = pollster::block_on(found).expect("values");
        for fact in 0..rows.len() {
            let of = |rows: &Tensor<2>| values(rows.clone().narrow(0, fact, 1));
            golden.check(&format!("memit.r{fact}.t0"), &of(&prepared.states), TOLERANCE);
            golden.check(&format!("memit.r{fact}.delta"), &of(&shifts), TOLERANCE);
            let own: Vec<_> = trace.iter().filter(|step| step.fact == fact).copied().collect();
            check_trace(&golden, &format!("memit.r{fact}.trace"), &own);
        }
    }
}

#[golden::test]
fn each_layer_sees_the_keys_and_states_that_the_layers_before_left() {
    for Setting { golden, loaded, layers, rows, .. } in settings() {
        for run in ["memit", "memit_lo"] {
            let mut model = loaded.model.clone();
            let mut walk = Walk::new(&model, &rows, layers[0]);
            for layer in &layers {
                let seen = walk.look(&model, *layers.last().expect("layers"));
                golden.check(&format!("{run}.l{layer}.K"), &columns(seen.keys.clone()), TOLERANCE);
                golden.check(&format!("{run}.l{layer}.cur_z"), &columns(seen.states.clone()), TOLERANCE);
                let stored = golden.matrix(&format!("{run}.l{layer}.dW"));
                let delta = Delta::Dense(if model.stores_transposed() { stored.transpose() } else { stored });
                walk.pass(seen, &delta);
                let site = WeightSite { layer: *layer, matrix: Matrix::MlpDown };
                model = model.apply(&[WeightDelta { site, delta }]).expect("fits");
            }
        }
    }
}

#[golden::test]
fn the_solution_by_the_cached_factor_is_the_reference_s() {
    for Setting { golden, layers, .. } in settings() {
        for run in ["memit", "memit_lo"] {
            let lambda = golden.json[run]["lambda"].as_f64().expect("lambda");
            for layer in &layers {
                let keys = host(&golden, &format!("{run}.l{layer}.K"));
                let unit = Mat::identity(keys.ncols(), keys.ncols());
                let weights = Weights { lambda, mu: 1.0 };
                let (left, right) = closed_form(&golden.moment(*layer), &keys, &unit, weights).expect("solves");
                let adjusted = &left * &right;
                golden.check(&format!("{run}.l{layer}.adj_k"), &flat(&adjusted), 1e-6);
                let residual = host(&golden, &format!("{run}.l{layer}.resid"));
                let change = &adjusted * residual.transpose(); // [d_mlp, d_model], as GPT-2 stores it
                let stored = if golden.name.starts_with("gpt2") { change } else { change.transpose().to_owned() };
                golden.check(&format!("{run}.l{layer}.dW"), &flat(&stored), 1e-6);
            }
        }
    }
}

#[golden::test]
fn a_whole_edit_is_the_reference_s() {
    for Setting { golden, loaded, templates, layers, facts, .. } in settings() {
        let moments = layers.iter().map(|layer| (*layer, Arc::new(golden.moment(*layer)))).collect();
        for run in ["memit", "memit_lo"] {
            let input = Input {
                model: &loaded.model,
                tokenizer: &loaded.tokenizer,
                templates: &templates,
                moments: &moments,
                history: &[],
                hypernetwork: None,
            };
            let spec = EditorSpec::Memit(MemitSpec {
                layers: Some(layers.clone()),
                mom2_update_weight: golden.json[run]["lambda"].as_f64().expect("lambda"),
                value: value_spec(&golden.json["memit"]),
                ..MemitSpec::default()
            });
            let planned = pollster::block_on(plan(&input, &facts, &spec, &mut |_| {})).expect("an edit");
            assert_eq!(planned.deltas.len(), layers.len());
            for (layer, change) in layers.iter().zip(&planned.deltas) {
                let dense = change.delta.dense();
                let stored = if loaded.model.stores_transposed() { dense.transpose() } else { dense };
                golden.check(&format!("{run}.l{layer}.dW"), &values(stored), TOLERANCE);
            }
        }
    }
}
