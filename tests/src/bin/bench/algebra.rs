//! Matrices alone: MEMIT's system, RECT's selection, and how fast products are.

use std::{path::Path, time::Instant};

use anyhow::{Context, Result};
use burn::tensor::{Device, Distribution, Tensor};
use faer::Mat;
use rectify_core::{
    Session,
    edit::{
        self,
        memit::{Weights, closed_form, direct},
        moments::Moment,
    },
    model::{Matrix, WeightSite},
};
use safetensors::Dtype;
use serde_json::{Value, json};

use crate::{mean_seconds, write};

/// What the jobs are about that follow one another.
#[derive(Default)]
pub struct Bench {
    system: Option<System>,
    matrices: Option<Matrices>,
}

struct System {
    moment: Moment,
    /// `[d_mlp, facts]`
    keys: Mat<f64>,
    /// `[facts, d_model]`
    residual: Mat<f64>,
}

struct Matrices {
    delta: Tensor<2>,
    weight: Tensor<2>,
}

impl Bench {
    /// A second moment, keys and a residual, written to `file`.
    ///
    /// The moment is a product of 64 columns with a diagonal added: of full rank, and made in no time.
    pub fn system(&mut self, d_mlp: usize, d_model: usize, facts: usize, file: &Path) -> Result<Value> {
        let device = Device::flex();
        let random = |dims: [usize; 2]| Tensor::<2>::random(dims, Distribution::Normal(0.0, 1.0), &device);
        let columns = random([d_mlp, 64]);
        let moment = host(&columns.clone().matmul(columns.transpose()))?;
        let moment = (0..d_mlp * d_mlp).map(|i| {
            // Exactly symmetric: the upper half is read from the lower one.
            let (row, column) = (i / d_mlp, i % d_mlp);
            let value = f64::from(moment[row.max(column) * d_mlp + row.min(column)]) / 64.0;
            if row == column { value + 0.1 } else { value }
        });
        let moment: Vec<f64> = moment.collect();
        let (keys, residual) = (host(&random([d_mlp, facts]))?, host(&random([facts, d_model]))?);
        let f64s = |values: &[f32]| values.iter().flat_map(|value| f64::from(*value).to_le_bytes()).collect();
        write(
            file,
            &[
                ("moment", [d_mlp, d_mlp], Dtype::F64, moment.iter().flat_map(|value| value.to_le_bytes()).collect()),
                ("keys", [d_mlp, facts], Dtype::F64, f64s(&keys)),
                ("residual", [facts, d_model], Dtype::F64, f64s(&residual)),
            ],
        )?;
        let system = System {
            moment: Moment::given(moment, d_mlp, 0),
            keys: Mat::from_fn(d_mlp, facts, |i, j| f64::from(keys[i * facts + j])),
            residual: Mat::from_fn(facts, d_model, |i, j| f64::from(residual[i * d_model + j])),
        };
        let started = Instant::now();
        system.moment.factor()?;
        let seconds = started.elapsed().as_secs_f64();
        self.system = Some(system);
        Ok(json!({ "seconds": seconds }))
    }

    /// The solution for the first `facts` facts.
    pub fn solve(&mut self, facts: usize, lambda: f64, by_elimination: bool, least: f64) -> Result<Value> {
        let System { moment, keys, residual } = self.system.as_ref().context("a system comes first")?;
        let keys = keys.subcols(0, facts).to_owned();
        let residual = residual.subrows(0, facts).to_owned();
        let weights = Weights { lambda, mu: 1.0 };
        let solve = if by_elimination { direct } else { closed_form };
        let (seconds, (left, right)) = mean_seconds(least, || Ok(solve(moment, &keys, &residual, weights)?))?;
        let update = &left * &right; // [d_mlp, d_model]
        let sums: Vec<f64> = update.col_iter().map(|column| column.iter().sum()).collect();
        Ok(json!({ "seconds": seconds, "delta_norm": update.norm_l2(), "sums": sums }))
    }

    /// A matrix, the model's or a random one, and a change of rank one, written to `file`.
    pub fn matrices(
        &mut self,
        session: &Session,
        dims: [usize; 2],
        layer: Option<usize>,
        file: &Path,
    ) -> Result<Value> {
        let device = session.device();
        let random = |dims: [usize; 2]| Tensor::<2>::random(dims, Distribution::Normal(0.0, 0.02), device);
        let weight = match layer {
            None => random(dims),
            Some(layer) => {
                session.model().context("a model is loaded")?.weight(WeightSite { layer, matrix: Matrix::MlpDown })
            }
        };
        let [rows, columns] = weight.dims();
        let delta = random([rows, 1]).matmul(random([1, columns]));
        let bytes = |tensor: &Tensor<2>| {
            Ok::<_, anyhow::Error>(host(tensor)?.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>())
        };
        let shape = [rows, columns];
        write(file, &[("delta", shape, Dtype::F32, bytes(&delta)?), ("weight", shape, Dtype::F32, bytes(&weight)?)])?;
        self.matrices = Some(Matrices { delta, weight });
        Ok(json!({ "rows": rows, "columns": columns }))
    }

    /// RECT, and beside it one copy of the matrix.
    pub fn rect(&mut self, keep: f64, least: f64, save: Option<&Path>) -> Result<Value> {
        let Matrices { delta, weight } = self.matrices.as_ref().context("matrices come first")?;
        let (seconds, kept) =
            mean_seconds(least, || Ok(pollster::block_on(edit::rect(delta.clone(), weight.clone(), keep))?))?;
        let kept = host(&kept)?;
        let mut copy = vec![0.0; kept.len()];
        let (copying, ()) = mean_seconds(least.min(0.2), || {
            copy.copy_from_slice(std::hint::black_box(&kept));
            std::hint::black_box(&mut copy);
            Ok(())
        })?;
        if let Some(save) = save {
            let bytes = kept.iter().flat_map(|value| value.to_le_bytes()).collect();
            write(save, &[("kept", delta.dims(), Dtype::F32, bytes)])?;
        }
        let survivors = kept.iter().filter(|value| **value != 0.0).count();
        Ok(json!({ "seconds": seconds, "copy": copying, "survivors": survivors }))
    }
}

fn host(tensor: &Tensor<2>) -> Result<Vec<f32>> {
    tensor.to_data().try_to_vec::<f32>().map_err(|error| anyhow::anyhow!("{error:?}"))
}

/// Floating point operations per second of a product and of the product back.
pub fn matmul(device: &Device, [rows, inner, columns]: [usize; 3], least: f64) -> Result<Value> {
    let random = |dims: [usize; 2]| Tensor::<2>::random(dims, Distribution::Default, device);
    let (x, w, v) = (random([rows, inner]), random([inner, columns]), random([columns, inner]));
    // On this device a product is done when it returns.
    let (seconds, _) = mean_seconds(least, || Ok(x.clone().matmul(w.clone()).matmul(v.clone())))?;
    Ok(json!({ "rate": (4 * rows * inner * columns) as f64 / seconds }))
}
