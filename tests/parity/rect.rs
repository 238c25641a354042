use burn::tensor::{Tensor, TensorData};
use rectify_core::{
    edit::{Delta, low_rank, n_kept, pca, prune, random, rect},
    model::{Matrix, WeightSite},
};

use crate::golden::{self, Golden, MODELS, device, values};

fn kept(delta: Tensor<2>, weight: Tensor<2>, keep: f64) -> Vec<f32> {
    values(pollster::block_on(rect(delta, weight, keep)).expect("a share"))
}

fn row(numbers: &[f32]) -> Tensor<2> {
    Tensor::from_data(TensorData::new(numbers.to_vec(), [1, numbers.len()]), &device())
}

#[golden::test]
fn the_same_entries_survive_as_in_the_reference() {
    for golden in MODELS.map(Golden::open) {
        let model = golden.model().model;
        let cases = golden.json["rect"]["cases"].as_array().expect("cases");
        for case in cases {
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

#[golden::test]
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

/// The example of the paper's Figure 6, with its printed numbers: relative changes of .6/6 and .1/1 are not even the same
/// in binary.
#[golden::test]
fn the_paper_s_example_keeps_the_four_it_names() {
    let matrix = |rows: [[f32; 4]; 4]| Tensor::from_data(TensorData::new(rows.concat(), [4, 4]), &device());
    let weight = matrix([[2., 6., 5., 8.], [3., 4., 1., 9.], [8., 5., 6., 1.], [6., 4., 3., 2.]]);
    let delta =
        matrix([[0.02, 0.6, 0.05, 0.08], [0.03, 0.04, 0.1, 0.09], [0.8, 0.05, 0.06, 0.01], [0.06, 0.04, 0.03, 0.2]]);
    let expected = [[0., 0.6, 0., 0.], [0., 0., 0.1, 0.], [0.8, 0., 0., 0.], [0., 0., 0., 0.2]];
    assert_eq!(kept(delta, weight, 0.25), expected.concat());
}

#[golden::test]
fn a_zero_weight_makes_a_change_infinite_and_no_change_too() {
    // Relative changes: 0.5, ∞ (2/0), ∞ (0/0), 0.1, 0.2; three of five go.
    let (delta, weight) = (row(&[0.5, 2.0, 0.0, 0.1, 0.2]), row(&[1.0, 0.0, 0.0, 1.0, 1.0]));
    assert_eq!(kept(delta, weight, 0.4), [0.0, 2.0, 0.0, 0.0, 0.0]);
}

#[golden::test]
fn of_equal_changes_the_later_survive() {
    let ones = row(&[1.0; 10]);
    assert_eq!(kept(ones.clone(), ones, 0.3), [0., 0., 0., 0., 0., 0., 0., 1., 1., 1.]);
    let weight = row(&[1.0, 2.0, 1.0, 2.0, 1.0, 0.5]);
    assert_eq!(kept(row(&[1.0; 6]), weight, 0.5), [0., 0., 1., 0., 1., 1.]);
}

#[golden::test]
fn random_keeps_as_many_and_the_same_for_a_seed() {
    let delta = row(&[1.0; 1000]);
    let draw = |seed| values(random(delta.clone(), 0.4, seed));
    assert_eq!(draw(1).iter().filter(|value| **value != 0.0).count(), 400);
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1), draw(2));
}

#[golden::test]
fn scores_of_principal_components_are_the_reference_s() {
    for golden in MODELS.map(Golden::open) {
        for (name, leading) in [("rome.r0.plain", 1), ("memit.l2", 4)] {
            let array = format!("pca.{name}.k20.scores");
            let [rows, n] = golden.shape(&array)[..] else { panic!("a matrix") };
            let delta = Delta::Dense(golden.matrix(&format!("{name}.dW")));
            let [_, columns] = delta.dims();
            let (scores, entries) = pollster::block_on(pca(&delta, 0.2)).expect("decomposes");
            assert_eq!(entries, rows * n);
            let (ours, theirs) = (values(scores.dense()), golden.f64s(&array));
            let largest = theirs.iter().fold(0.0f64, |most, score| most.max(score.abs()));
            for i in 0..rows {
                for j in 0..columns {
                    let expected = if j < n { theirs[i * n + j] } else { 0.0 };
                    // Beyond the leading columns there is only rounding, of which nothing but the size is meant.
                    let expected = if j < leading { expected } else { 0.0 };
                    let difference = (f64::from(ours[i * columns + j]) - expected).abs();
                    assert!(difference <= 1e-5 * largest.max(1.0), "{} {array} [{i}, {j}]", golden.name);
                }
            }
        }
    }
}

#[golden::test]
fn the_closest_matrix_of_low_rank_leaves_a_low_rank_alone() {
    let golden = Golden::open("gpt2-tiny");
    let delta = golden.matrix("memit.l2.dW");
    let size = |difference: Tensor<2>| values((difference.clone() * difference).sum().sqrt())[0];
    let at_rank = |keep| pollster::block_on(low_rank(Delta::Dense(delta.clone()), keep)).expect("decomposes").dense();
    let [rows, columns] = delta.dims();
    let smaller = rows.min(columns) as f64;
    assert!(size(at_rank(4.0 / smaller) - delta.clone()) < 1e-5 * size(delta.clone()), "four facts, rank four");
    let errors = [1.0, 2.0, 3.0].map(|rank| size(at_rank(rank / smaller) - delta.clone()));
    assert!(errors.is_sorted_by(|more, less| more > less), "{errors:?}");
}

#[golden::test]
fn prune_touches_only_what_outgrows_the_weight() {
    let golden = Golden::open("gpt2-tiny");
    let weight = golden.model().model.weight(WeightSite { layer: 1, matrix: Matrix::MlpDown });
    let delta = golden.matrix("rome.r0.plain.dW");
    let size = |delta: &Delta| f64::from(values((delta.dense() * delta.dense()).sum().sqrt())[0]);
    let pruned = |scale: f32| {
        let delta = Delta::Dense(delta.clone() * scale);
        (size(&delta), size(&pollster::block_on(prune(delta, &weight, std::f64::consts::E)).expect("prunes")))
    };
    let (small, same) = pruned(1e-3);
    assert_eq!(small, same, "nothing outgrows the weight");
    // The update has one singular value, its size: ln s − ln σ₀ + σ₀ of two sizes differ by the logarithm of their ratio.
    let ((large, reined), (larger, reined_more)) = (pruned(1e3), pruned(1e4));
    assert!(reined < large / 10.0 && reined_more < larger / 10.0);
    // Sizes of thousands have so many digits behind the point in 32 bits.
    let tolerance = 1e-3_f64.max(1e-6 * reined_more);
    assert!((reined_more - reined - (larger / large).ln()).abs() < tolerance, "{reined} {reined_more}");
}
