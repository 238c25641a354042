use burn::tensor::{Device, Tensor, TensorData};
use rectify_core::{
    edit::{n_kept, random, rect},
    model::{Matrix, WeightSite},
};

use crate::golden::{Golden, MODELS, values};

fn kept(delta: Tensor<2>, weight: Tensor<2>, keep: f64) -> Vec<f32> {
    values(pollster::block_on(rect(delta, weight, keep)).expect("a share"))
}

fn row(numbers: &[f32]) -> Tensor<2> {
    Tensor::from_data(TensorData::new(numbers.to_vec(), [1, numbers.len()]), &Device::flex())
}

#[test]
fn the_same_entries_survive_as_in_the_reference() {
    for golden in MODELS.map(Golden::open) {
        let model = golden.model().model;
        let cases = golden.json["rect"]["cases"].as_array().expect("cases");
        for case in cases.iter().filter(|case| case["name"].as_str().is_some_and(|name| name.starts_with("rome"))) {
            let name = case["name"].as_str().expect("name");
            let k = case["k"].as_u64().expect("k");
            let layer = case["layer"].as_u64().expect("layer") as usize;
            let weight = model.weight(WeightSite { layer, matrix: Matrix::MlpDown });
            let weight = if model.stores_transposed() { weight.transpose() } else { weight };
            let delta = golden.matrix(&format!("{name}.dW"));
            let [rows, columns] = delta.dims();
            let mask = golden.mask(&format!("rect.{name}.k{k}.mask"), rows * columns);
            let before = values(delta.clone());
            let after = kept(delta, weight, k as f64 / 100.0);
            assert_eq!(n_kept(rows * columns, k as f64 / 100.0) as u64, case["kept"].as_u64().expect("kept"));
            for (i, survives) in mask.iter().enumerate() {
                let expected = if *survives { before[i] } else { 0.0 };
                assert_eq!(after[i], expected, "{} {name} top {k} %: entry {i}", golden.name);
            }
        }
    }
}

#[test]
fn keeping_all_is_the_identity_and_masks_are_nested() {
    let golden = Golden::open("gpt2-tiny");
    let weight = golden.model().model.weight(WeightSite { layer: 1, matrix: Matrix::MlpDown });
    let delta = golden.matrix("rome.r0.plain.dW");
    assert_eq!(kept(delta.clone(), weight.clone(), 1.0), values(delta.clone()));
    let survivors =
        |keep| -> Vec<bool> { kept(delta.clone(), weight.clone(), keep).iter().map(|value| *value != 0.0).collect() };
    let masks = [0.2, 0.4, 0.6, 0.8].map(survivors);
    for pair in masks.windows(2) {
        assert!(pair[0].iter().zip(&pair[1]).all(|(small, large)| !small || *large));
    }
}

#[test]
fn a_zero_weight_makes_a_change_infinite_and_no_change_too() {
    // Relative changes: 0.5, ∞ (2/0), ∞ (0/0), 0.1, 0.2; three of five go.
    let (delta, weight) = (row(&[0.5, 2.0, 0.0, 0.1, 0.2]), row(&[1.0, 0.0, 0.0, 1.0, 1.0]));
    assert_eq!(kept(delta, weight, 0.4), [0.0, 2.0, 0.0, 0.0, 0.0]);
}

#[test]
fn of_equal_changes_the_later_survive() {
    let ones = row(&[1.0; 10]);
    assert_eq!(kept(ones.clone(), ones, 0.3), [0., 0., 0., 0., 0., 0., 0., 1., 1., 1.]);
    let weight = row(&[1.0, 2.0, 1.0, 2.0, 1.0, 0.5]);
    assert_eq!(kept(row(&[1.0; 6]), weight, 0.5), [0., 0., 1., 0., 1., 1.]);
}

#[test]
fn random_keeps_as_many_and_the_same_for_a_seed() {
    let delta = row(&[1.0; 1000]);
    let draw = |seed| values(random(delta.clone(), 0.4, seed));
    assert_eq!(draw(1).iter().filter(|value| **value != 0.0).count(), 400);
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1), draw(2));
}
