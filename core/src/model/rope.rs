//! Rotary positions, <https://arxiv.org/abs/2104.09864>: their frequencies as a checkpoint scales them.

use std::collections::HashMap;

use burn::tensor::{Device, Tensor, TensorData};

use super::{
    Frame,
    config::{Config, TOKENS},
    heads::Heads,
};
use crate::{Error, Result, kernels};

/// How fast each pair of a head's columns turns, and which columns are pairs.
#[derive(Clone)]
pub(super) struct Rope {
    /// Radians a position, one for each pair of columns.
    frequencies: Vec<f64>,
    pairs: Pairs,
}

/// Which columns turn together.
#[derive(Clone, Copy)]
pub(super) enum Pairs {
    /// `i` and `i + n/2`: the half-split form of LLaMA and its relatives.
    Halves,
    /// `2i` and `2i + 1`: GPT-J's.
    Neighbors,
}

impl Rope {
    /// `θ^(−2i/n)` for the first `n` columns of a head.
    pub fn new(n: usize, theta: f64, pairs: Pairs) -> Self {
        Self { frequencies: (0..n / 2).map(|i| theta.powf(-2.0 * i as f64 / n as f64)).collect(), pairs }
    }

    /// What `config.json` says, in either layout: `rope_theta` with `rope_scaling`, or `rope_parameters` alone, as
    /// transformers writes it since version 5.
    ///
    /// Computed are `default`, `linear`, `llama3`, and `dynamic`, which within the model's context is `default`.
    ///
    /// # Errors
    ///
    /// For any other kind of scaling, and for a parameter that is not known.
    pub fn from_config(config: &mut Config, d_head: usize) -> Result<Self> {
        let (old, new) = (config.object("rope_scaling")?, config.object("rope_parameters")?);
        let own_theta = config.optional_number("rope_theta")?;
        if let (Some(_), Some(_)) = (&old, &new) {
            return Err(Error::bad_file(
                "config.json",
                "has rope_scaling and rope_parameters; one of them is expected",
            ));
        }
        let Some(mut scaling) = new.or(old) else {
            return Ok(Self::new(d_head, own_theta.unwrap_or(THETA), Pairs::Halves));
        };
        let theta = match (scaling.optional_number("rope_theta")?, own_theta) {
            (Some(inner), Some(outer)) if inner.to_bits() != outer.to_bits() => {
                return scaling.refuse("rope_theta", &inner.into(), &format!("rope_theta beside it is {outer}"));
            }
            (inner, outer) => inner.or(outer).unwrap_or(THETA),
        };
        let mut rope = Self::new(d_head, theta, Pairs::Halves);
        let (kind, older) = (scaling.value("rope_type"), scaling.value("type"));
        let kind = kind.or(older).unwrap_or_else(|| "default".into());
        // Every kind's parameters may stand beside a kind that has no use for them.
        let factor = scaling.optional_number("factor")?;
        let (low, high) = (scaling.optional_number("low_freq_factor")?, scaling.optional_number("high_freq_factor")?);
        let original = scaling.optional_size("original_max_position_embeddings", TOKENS)?;
        scaling.finish()?;
        let missing = |key: &str| Error::bad_file("config.json", format!("scales rotations by {kind}, without {key}"));
        match kind.as_str() {
            // Beyond the context, which no row exceeds, dynamic scaling would begin.
            Some("default" | "dynamic") => {}
            Some("linear") => {
                let factor = factor.ok_or_else(|| missing("factor"))?;
                rope.frequencies.iter_mut().for_each(|frequency| *frequency /= factor);
            }
            Some("llama3") => {
                let llama3 = Llama3 {
                    factor: factor.ok_or_else(|| missing("factor"))?,
                    low: low.ok_or_else(|| missing("low_freq_factor"))?,
                    high: high.ok_or_else(|| missing("high_freq_factor"))?,
                    original: original.ok_or_else(|| missing("original_max_position_embeddings"))? as f64,
                };
                if llama3.high <= llama3.low {
                    let problem = format!("low_freq_factor is {}; less is expected", llama3.low);
                    return scaling.refuse("high_freq_factor", &llama3.high.into(), &problem);
                }
                rope.frequencies.iter_mut().for_each(|frequency| *frequency = llama3.scaled(*frequency));
            }
            _ => {
                let problem = "\"default\", \"linear\", \"dynamic\" or \"llama3\" is computed";
                return scaling.refuse("rope_type", &kind, problem);
            }
        }
        Ok(rope)
    }

    /// The rotations of a frame's positions.
    pub fn at(&self, frame: &Frame, device: &Device) -> Rotation {
        let turning = 2 * self.frequencies.len();
        let mut known: HashMap<i32, usize> = HashMap::new();
        let (mut cos, mut sin) = (Vec::new(), Vec::new());
        // A batch has the same few positions in every row: their angles are computed once.
        let (mut all_cos, mut all_sin) = (Vec::new(), Vec::new());
        for position in frame.positions() {
            let from = *known.entry(*position).or_insert_with(|| {
                let from = cos.len();
                for column in 0..turning {
                    let pair = match self.pairs {
                        Pairs::Halves => column % self.frequencies.len(),
                        Pairs::Neighbors => column / 2,
                    };
                    let angle = f64::from(*position) * self.frequencies[pair];
                    cos.push(angle.cos() as f32);
                    sin.push(angle.sin() as f32);
                }
                from
            });
            all_cos.extend_from_slice(&cos[from..from + turning]);
            all_sin.extend_from_slice(&sin[from..from + turning]);
        }
        let [batch, pos] = frame.dims();
        let table = |values| Tensor::from_data(TensorData::new(values, [batch, pos, 1, turning]), device);
        Rotation { cos: table(all_cos), sin: table(all_sin), pairs: self.pairs }
    }
}

/// What `rope_theta` is where nobody says.
const THETA: f64 = 10_000.0;

/// Llama 3's scaling: slow rotations are slowed by `factor`, fast ones stay, and those between go over smoothly.
struct Llama3 {
    factor: f64,
    low: f64,
    high: f64,
    original: f64,
}

impl Llama3 {
    fn scaled(&self, frequency: f64) -> f64 {
        let wavelength = 2.0 * std::f64::consts::PI / frequency;
        if wavelength < self.original / self.high {
            frequency
        } else if wavelength > self.original / self.low {
            frequency / self.factor
        } else {
            let smooth = (self.original / wavelength - self.low) / (self.high - self.low);
            (1.0 - smooth) * frequency / self.factor + smooth * frequency
        }
    }
}

/// Cosines and sines of some positions, each `[batch, pos, 1, turning]`.
pub(super) struct Rotation {
    cos: Tensor<4>,
    sin: Tensor<4>,
    pairs: Pairs,
}

impl Rotation {
    /// Turns the first columns of each head's query and key, as many as there are angles for.
    pub fn turn(&self, joined: Tensor<2>, heads: Heads) -> Tensor<2> {
        let neighbors = matches!(self.pairs, Pairs::Neighbors);
        kernels::rotate(joined, self.cos.clone(), self.sin.clone(), heads, neighbors)
    }
}
