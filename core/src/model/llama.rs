//! LLaMA, <https://arxiv.org/abs/2302.13971>, with the grouped heads of LLaMA 2 and the tied head of small models.

use std::ops::Range;

use burn::tensor::{Tensor, TensorData, activation::silu};
use serde::Deserialize;

use super::{
    At, Cache, Frame, Matrix, Shape, Site, Tap, WeightSite,
    checkpoint::Tensors,
    embedding::Embedding,
    frame::{KeysValues, attend, heads},
};
use crate::{Error, Result};

/// `config.json` of a LLaMA checkpoint, as far as it matters.
#[derive(Clone, Deserialize)]
pub(super) struct LlamaConfig {
    hidden_size: usize,
    intermediate_size: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    num_hidden_layers: usize,
    max_position_embeddings: usize,
    vocab_size: usize,
    rms_norm_eps: f64,
    head_dim: Option<usize>,
    #[serde(default = "default_theta")]
    rope_theta: f64,
    #[serde(default)]
    rope_scaling: Option<serde_json::Value>,
    #[serde(default)]
    tie_word_embeddings: bool,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
    #[serde(default = "default_activation")]
    hidden_act: String,
}

fn default_theta() -> f64 {
    10_000.0
}

fn default_activation() -> String {
    "silu".into()
}

impl LlamaConfig {
    pub(super) fn check(&self) -> Result<()> {
        let refuse = |problem: String| Err(Error::bad_file("config.json", problem));
        if self.hidden_act != "silu" {
            return refuse(format!("hidden_act is {:?}; LLaMA is computed with \"silu\"", self.hidden_act));
        }
        if self.attention_bias || self.mlp_bias {
            return refuse("attention_bias or mlp_bias is on; LLaMA has no biases".into());
        }
        if let Some(scaling) = &self.rope_scaling {
            return refuse(format!("rope_scaling is {scaling}; only unscaled rotations are computed"));
        }
        if self.d_head() * self.num_attention_heads != self.hidden_size || !self.d_head().is_multiple_of(2) {
            return refuse(format!("head_dim {} does not fit hidden_size {}", self.d_head(), self.hidden_size));
        }
        super::check_heads(self.hidden_size, self.num_attention_heads, "hidden_size", "num_attention_heads")?;
        super::check_heads(self.num_attention_heads, self.groups(), "num_attention_heads", "num_key_value_heads")
    }

    fn d_head(&self) -> usize {
        self.head_dim.unwrap_or(self.hidden_size / self.num_attention_heads.max(1))
    }

    fn groups(&self) -> usize {
        self.num_key_value_heads.unwrap_or(self.num_attention_heads)
    }
}

/// The weights of a LLaMA. Its `Linear` matrices are stored `[d_out, d_in]` and turned once, at load.
#[derive(Clone)]
pub struct Llama {
    config: LlamaConfig,
    tokens: Embedding,
    blocks: Vec<Block>,
    final_norm: Norm,
    /// The token embedding again where the head is tied.
    head: Embedding,
    rotation: Rotation,
    /// How many blocks, from the first on, no edit has changed.
    pub(super) intact: usize,
}

#[derive(Clone)]
struct Block {
    attention_norm: Norm,
    query: Tensor<2>,
    key: Tensor<2>,
    value: Tensor<2>,
    output: Tensor<2>,
    mlp_norm: Norm,
    gate: Tensor<2>,
    up: Tensor<2>,
    down: Tensor<2>,
}

#[derive(Clone)]
struct Norm {
    scale: Tensor<1>,
    epsilon: f64,
}

/// Cosines and sines of the rotary embedding, each `[context, d_head]`.
#[derive(Clone)]
struct Rotation {
    cos: Tensor<2>,
    sin: Tensor<2>,
}

pub(super) fn is_embedding(name: &str) -> bool {
    matches!(name, "model.embed_tokens.weight" | "lm_head.weight")
}

impl Llama {
    pub(super) fn load(config: LlamaConfig, tensors: &mut Tensors) -> Result<Self> {
        let (d, d_mlp) = (config.hidden_size, config.intermediate_size);
        let d_kv = config.d_head() * config.groups();
        let epsilon = config.rms_norm_eps;
        let norm =
            |tensors: &mut Tensors, name: String| Ok::<_, Error>(Norm { scale: tensors.vector(&name, d)?, epsilon });
        let linear = |tensors: &mut Tensors, name: String, [d_in, d_out]: [usize; 2]| {
            Ok::<_, Error>(tensors.matrix(&name, [d_out, d_in])?.transpose())
        };
        let blocks = (0..config.num_hidden_layers).map(|layer| {
            let block = format!("model.layers.{layer}");
            let (attention, mlp) = (format!("{block}.self_attn"), format!("{block}.mlp"));
            Ok(Block {
                attention_norm: norm(tensors, format!("{block}.input_layernorm.weight"))?,
                query: linear(tensors, format!("{attention}.q_proj.weight"), [d, d])?,
                key: linear(tensors, format!("{attention}.k_proj.weight"), [d, d_kv])?,
                value: linear(tensors, format!("{attention}.v_proj.weight"), [d, d_kv])?,
                output: linear(tensors, format!("{attention}.o_proj.weight"), [d, d])?,
                mlp_norm: norm(tensors, format!("{block}.post_attention_layernorm.weight"))?,
                gate: linear(tensors, format!("{mlp}.gate_proj.weight"), [d, d_mlp])?,
                up: linear(tensors, format!("{mlp}.up_proj.weight"), [d, d_mlp])?,
                down: linear(tensors, format!("{mlp}.down_proj.weight"), [d_mlp, d])?,
            })
        });
        let blocks = blocks.collect::<Result<Vec<_>>>()?;
        let tokens = tensors.embedding("model.embed_tokens.weight", [config.vocab_size, d])?;
        let head = if config.tie_word_embeddings {
            tokens.clone()
        } else {
            tensors.embedding("lm_head.weight", [config.vocab_size, d])?
        };
        let rotation = Rotation::new(&config, &tokens);
        let (final_norm, intact) = (norm(tensors, "model.norm.weight".into())?, blocks.len());
        Ok(Self { blocks, tokens, head, final_norm, rotation, intact, config })
    }

    pub(super) fn shape(&self) -> Shape {
        let config = &self.config;
        Shape {
            layers: config.num_hidden_layers,
            d_model: config.hidden_size,
            d_mlp: config.intermediate_size,
            vocab: config.vocab_size,
            context: config.max_position_embeddings,
        }
    }

    pub(super) fn embed(&self, tokens: &[u32], frame: &Frame) -> Tensor<3> {
        let [batch, pos] = frame.dims();
        self.tokens.rows(tokens, &self.tokens.device()).reshape([batch, pos, self.config.hidden_size])
    }

    pub(super) fn run(
        &self,
        layers: Range<usize>,
        hidden: Tensor<3>,
        frame: &Frame,
        past: &mut Cache,
        tap: &mut dyn Tap,
    ) -> Tensor<3> {
        let [batch, pos, d] = hidden.dims();
        let rotation = self.rotation.at(frame);
        let three = |flat: Tensor<2>| -> Tensor<3> {
            let [_, width] = flat.dims();
            flat.reshape([batch, pos, width])
        };
        // Between taps the batch and its positions are one dimension: every product is one matrix product.
        let mut hidden = hidden.reshape([batch * pos, d]);
        for layer in layers {
            let block = &self.blocks[layer];
            let (attended, seen) =
                block.attention(hidden.clone(), frame, past.layers[layer].as_ref(), &self.config, &rotation);
            past.layers[layer] = Some(seen);
            let middle = hidden + attended;
            let mut tap =
                |at, value: Tensor<2>| -> Tensor<2> { tap.tap(Site { layer, at }, three(value)).flatten(0, 1) };
            let read = tap(At::MlpIn, block.mlp_norm.forward(middle.clone()));
            let gate = tap(At::MlpPre, read.clone().matmul(block.gate.clone()));
            let up = tap(At::MlpUp, read.matmul(block.up.clone()));
            let key = tap(At::MlpKey, silu(gate) * up);
            let out = tap(At::MlpOut, key.matmul(block.down.clone()));
            hidden = tap(At::ResidPost, middle + out);
        }
        three(hidden)
    }

    pub(super) fn logits(&self, hidden: Tensor<2>) -> Tensor<2> {
        self.head.logits(&self.final_norm.forward(hidden))
    }

    pub(super) fn weight(&self, site: WeightSite) -> Tensor<2> {
        let block = &self.blocks[site.layer];
        match site.matrix {
            Matrix::MlpGate => block.gate.clone(),
            Matrix::MlpUp => block.up.clone(),
            Matrix::MlpDown => block.down.clone(),
        }
    }

    pub(super) fn with_weight(&self, site: WeightSite, weight: Tensor<2>) -> Self {
        let mut edited = Self { intact: self.intact.min(site.layer), ..self.clone() };
        let block = &mut edited.blocks[site.layer];
        match site.matrix {
            Matrix::MlpGate => block.gate = weight,
            Matrix::MlpUp => block.up = weight,
            Matrix::MlpDown => block.down = weight,
        }
        edited
    }

    pub(super) fn name(&self, site: WeightSite) -> String {
        let matrix = match site.matrix {
            Matrix::MlpGate => "gate",
            Matrix::MlpUp => "up",
            Matrix::MlpDown => "down",
        };
        format!("model.layers.{}.mlp.{matrix}_proj.weight", site.layer)
    }

    /// The token embedding.
    pub(super) fn embedding(&self) -> &Embedding {
        &self.tokens
    }
}

impl Block {
    /// `[batch * pos, d_model]`, and everything seen including the new tokens.
    fn attention(
        &self,
        hidden: Tensor<2>,
        frame: &Frame,
        past: Option<&KeysValues>,
        config: &LlamaConfig,
        rotation: &Rotation,
    ) -> (Tensor<2>, KeysValues) {
        let normed = self.attention_norm.forward(hidden);
        let project = |weight: &Tensor<2>, n: usize| heads(normed.clone().matmul(weight.clone()), frame.dims(), n);
        let query = rotation.turn(project(&self.query, config.num_attention_heads), frame);
        let keys = rotation.turn(project(&self.key, config.groups()), frame);
        let values = project(&self.value, config.groups());
        let seen = KeysValues::then(past, KeysValues { keys, values });
        (attend(query, &seen, frame).matmul(self.output.clone()), seen)
    }
}

impl Norm {
    /// `x / √(mean x² + ε) · scale` over the last dimension.
    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let mean_square = (x.clone() * x.clone()).mean_dim(1);
        x / (mean_square + self.epsilon).sqrt() * self.scale.clone().unsqueeze()
    }
}

impl Rotation {
    /// `cos` and `sin` of `position · θ^(−2i/d_head)`, the half-split form: column i and i + d_head/2 turn together.
    fn new(config: &LlamaConfig, on: &Embedding) -> Self {
        let (d_head, context) = (config.d_head(), config.max_position_embeddings);
        let angles = (0..context).flat_map(|position| {
            (0..d_head).map(move |column| {
                let i = column % (d_head / 2);
                position as f64 * config.rope_theta.powf(-2.0 * i as f64 / d_head as f64)
            })
        });
        let (cos, sin): (Vec<f32>, Vec<f32>) = angles.map(|angle| (angle.cos() as f32, angle.sin() as f32)).unzip();
        let table = |values| Tensor::from_data(TensorData::new(values, [context, d_head]), &on.device());
        Self { cos: table(cos), sin: table(sin) }
    }

    /// The rows of a frame's positions.
    fn at(&self, frame: &Frame) -> Self {
        let rows = |table: &Tensor<2>| table.clone().select(0, frame.positions.clone());
        Self { cos: rows(&self.cos), sin: rows(&self.sin) }
    }

    /// Turns `[batch, head, pos, d_head]`; `self` holds one row per position of the frame.
    fn turn(&self, x: Tensor<4>, frame: &Frame) -> Tensor<4> {
        let [batch, pos] = frame.dims();
        let half = x.dims()[3] / 2;
        let table = |table: &Tensor<2>| table.clone().reshape([batch, 1, pos, 2 * half]);
        let (left, right) = (x.clone().narrow(3, 0, half), x.clone().narrow(3, half, half));
        x * table(&self.cos) + Tensor::cat(vec![-right, left], 3) * table(&self.sin)
    }
}
