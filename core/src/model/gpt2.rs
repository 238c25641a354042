//! GPT-2, <https://huggingface.co/docs/transformers/model_doc/gpt2>: the whole architecture, top to bottom.

use std::ops::Range;

use burn::tensor::{Tensor, module::layer_norm};
use serde::Deserialize;

use super::{
    At, Cache, Frame, Matrix, Shape, Site, Tap, WeightSite,
    checkpoint::Tensors,
    embedding::Embedding,
    frame::{KeysValues, attend, heads},
};
use crate::{Error, Result};

/// `config.json` of a GPT-2 checkpoint, as far as it matters.
#[derive(Clone, Deserialize)]
pub(super) struct Gpt2Config {
    n_embd: usize,
    n_head: usize,
    n_layer: usize,
    n_positions: usize,
    n_inner: Option<usize>,
    vocab_size: usize,
    #[serde(default = "default_epsilon")]
    layer_norm_epsilon: f64,
    #[serde(default = "default_activation")]
    activation_function: String,
}

fn default_epsilon() -> f64 {
    1e-5
}

fn default_activation() -> String {
    "gelu_new".into()
}

impl Gpt2Config {
    pub(super) fn check(&self) -> Result<()> {
        if !matches!(self.activation_function.as_str(), "gelu_new" | "gelu_pytorch_tanh") {
            let found = &self.activation_function;
            let problem = format!("activation_function is {found:?}; GPT-2 is computed with \"gelu_new\"");
            return Err(Error::bad_file("config.json", problem));
        }
        super::check_heads(self.n_embd, self.n_head, "n_embd", "n_head")
    }

    fn d_mlp(&self) -> usize {
        self.n_inner.unwrap_or(4 * self.n_embd)
    }
}

/// The weights of a GPT-2. Its `Conv1D` matrices are stored `[d_in, d_out]`, as they are used here.
#[derive(Clone)]
pub struct Gpt2 {
    config: Gpt2Config,
    /// `transformer.` in checkpoints saved with their head, nothing in OpenAI's.
    prefix: &'static str,
    tokens: Embedding,
    /// `[context, d_model]`
    positions: Tensor<2>,
    blocks: Vec<Block>,
    final_norm: Norm,
    /// How many blocks, from the first on, no edit has changed.
    pub(super) intact: usize,
}

#[derive(Clone)]
struct Block {
    attention_norm: Norm,
    /// Query, key and value side by side: `[d_model, 3 d_model]`.
    attention_in: Linear,
    attention_out: Linear,
    mlp_norm: Norm,
    up: Linear,
    down: Linear,
}

#[derive(Clone)]
struct Norm {
    scale: Tensor<1>,
    shift: Tensor<1>,
    epsilon: f64,
}

#[derive(Clone)]
struct Linear {
    weight: Tensor<2>,
    bias: Tensor<1>,
}

pub(super) fn is_embedding(name: &str) -> bool {
    name.ends_with("wte.weight")
}

impl Gpt2 {
    pub(super) fn load(config: Gpt2Config, tensors: &mut Tensors) -> Result<Self> {
        let prefix = if tensors.has("transformer.wte.weight") { "transformer." } else { "" };
        let (d, d_mlp, epsilon) = (config.n_embd, config.d_mlp(), config.layer_norm_epsilon);
        let norm = |tensors: &mut Tensors, name: String| {
            Ok::<_, Error>(Norm {
                scale: tensors.vector(&format!("{name}.weight"), d)?,
                shift: tensors.vector(&format!("{name}.bias"), d)?,
                epsilon,
            })
        };
        let linear = |tensors: &mut Tensors, name: String, shape: [usize; 2]| {
            Ok::<_, Error>(Linear {
                weight: tensors.matrix(&format!("{name}.weight"), shape)?,
                bias: tensors.vector(&format!("{name}.bias"), shape[1])?,
            })
        };
        let blocks = (0..config.n_layer).map(|layer| {
            let block = format!("{prefix}h.{layer}");
            Ok(Block {
                attention_norm: norm(tensors, format!("{block}.ln_1"))?,
                attention_in: linear(tensors, format!("{block}.attn.c_attn"), [d, 3 * d])?,
                attention_out: linear(tensors, format!("{block}.attn.c_proj"), [d, d])?,
                mlp_norm: norm(tensors, format!("{block}.ln_2"))?,
                up: linear(tensors, format!("{block}.mlp.c_fc"), [d, d_mlp])?,
                down: linear(tensors, format!("{block}.mlp.c_proj"), [d_mlp, d])?,
            })
        });
        Ok(Self {
            blocks: blocks.collect::<Result<_>>()?,
            prefix,
            tokens: tensors.embedding(&format!("{prefix}wte.weight"), [config.vocab_size, d])?,
            positions: tensors.matrix(&format!("{prefix}wpe.weight"), [config.n_positions, d])?,
            final_norm: norm(tensors, format!("{prefix}ln_f"))?,
            intact: config.n_layer,
            config,
        })
    }

    pub(super) fn shape(&self) -> Shape {
        let config = &self.config;
        Shape {
            layers: config.n_layer,
            d_model: config.n_embd,
            d_mlp: config.d_mlp(),
            vocab: config.vocab_size,
            context: config.n_positions,
        }
    }

    pub(super) fn embed(&self, tokens: &[u32], frame: &Frame) -> Tensor<3> {
        let [batch, pos] = frame.dims();
        let tokens = self.tokens.rows(tokens, &self.tokens.device());
        let positions = self.positions.clone().select(0, frame.positions.clone());
        (tokens + positions).reshape([batch, pos, self.config.n_embd])
    }

    pub(super) fn run(
        &self,
        layers: Range<usize>,
        hidden: Tensor<3>,
        frame: &Frame,
        past: &mut Cache,
        tap: &mut dyn Tap,
    ) -> Tensor<3> {
        let mut hidden = hidden;
        for layer in layers {
            let block = &self.blocks[layer];
            let (attended, seen) =
                block.attention(hidden.clone(), frame, past.layers[layer].as_ref(), self.config.n_head);
            past.layers[layer] = Some(seen);
            let middle = hidden + attended;
            let read = tap.tap(Site { layer, at: At::MlpIn }, block.mlp_norm.forward(middle.clone()));
            let pre = tap.tap(Site { layer, at: At::MlpPre }, block.up.forward(read));
            let key = tap.tap(Site { layer, at: At::MlpKey }, gelu_tanh(pre));
            let out = tap.tap(Site { layer, at: At::MlpOut }, block.down.forward(key));
            hidden = tap.tap(Site { layer, at: At::ResidPost }, middle + out);
        }
        hidden
    }

    pub(super) fn logits(&self, hidden: Tensor<2>) -> Tensor<2> {
        let hidden = layer_norm(
            hidden,
            self.final_norm.scale.clone(),
            Some(self.final_norm.shift.clone()),
            self.final_norm.epsilon,
        );
        self.tokens.logits(&hidden)
    }

    pub(super) fn weight(&self, site: WeightSite) -> Tensor<2> {
        match site.matrix {
            Matrix::MlpUp => self.blocks[site.layer].up.weight.clone(),
            Matrix::MlpDown => self.blocks[site.layer].down.weight.clone(),
            Matrix::MlpGate => no_gate(),
        }
    }

    pub(super) fn with_weight(&self, site: WeightSite, weight: Tensor<2>) -> Self {
        let mut edited = Self { intact: self.intact.min(site.layer), ..self.clone() };
        match site.matrix {
            Matrix::MlpUp => edited.blocks[site.layer].up.weight = weight,
            Matrix::MlpDown => edited.blocks[site.layer].down.weight = weight,
            Matrix::MlpGate => no_gate(),
        }
        edited
    }

    pub(super) fn name(&self, site: WeightSite) -> String {
        let (prefix, layer) = (self.prefix, site.layer);
        match site.matrix {
            Matrix::MlpUp => format!("{prefix}h.{layer}.mlp.c_fc.weight"),
            Matrix::MlpDown => format!("{prefix}h.{layer}.mlp.c_proj.weight"),
            Matrix::MlpGate => no_gate(),
        }
    }

    /// The token embedding, which is also the head.
    pub(super) fn embedding(&self) -> &Embedding {
        &self.tokens
    }
}

/// `Model::mlp_matrices` lists no gate for a GPT-2.
fn no_gate() -> ! {
    panic!("a GPT-2 has no gate")
}

impl Block {
    /// `[batch, pos, d_model]`, and everything seen including the new tokens.
    fn attention(
        &self,
        hidden: Tensor<3>,
        frame: &Frame,
        past: Option<&KeysValues>,
        n_head: usize,
    ) -> (Tensor<3>, KeysValues) {
        let [batch, pos, d] = hidden.dims();
        let joint = self.attention_in.forward(self.attention_norm.forward(hidden)).reshape([batch * pos, 3 * d]);
        let part = |i: usize| heads(joint.clone().narrow(1, i * d, d), [batch, pos], n_head);
        let seen = KeysValues::then(past, KeysValues { keys: part(1), values: part(2) });
        let mixed = attend(part(0), &seen, frame).reshape([batch, pos, d]);
        (self.attention_out.forward(mixed), seen)
    }
}

impl Norm {
    fn forward(&self, hidden: Tensor<3>) -> Tensor<3> {
        layer_norm(hidden, self.scale.clone(), Some(self.shift.clone()), self.epsilon)
    }
}

impl Linear {
    /// `x W + b`, as one product over all tokens.
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let [batch, pos, d_in] = x.dims();
        let [_, d_out] = self.weight.dims();
        let y = x.reshape([batch * pos, d_in]).matmul(self.weight.clone()) + self.bias.clone().unsqueeze();
        y.reshape([batch, pos, d_out])
    }
}

/// `x/2 (1 + tanh y)`, `y = √(2/π) (x + 0.044715 x³)`, as the same `x σ(2y)`: a logistic function costs a fraction of a
/// hyperbolic tangent on a processor. The cube is products, because a power costs several times as much.
fn gelu_tanh(x: Tensor<3>) -> Tensor<3> {
    let sqrt_8_over_pi = (8.0 / std::f64::consts::PI).sqrt();
    let inner = x.clone() * ((x.clone() * x.clone()) * (0.044_715 * sqrt_8_over_pi) + sqrt_8_over_pi);
    x * burn::tensor::activation::sigmoid(inner)
}
