//! GPT-J, <https://github.com/kingoflolz/mesh-transformer-jax>: attention and MLP read the same normed input, side by
//! side, and both are added to the residual stream at once.
//!
//! What an MLP writes is therefore seen by the attention of later blocks only, never by its own.

use std::{ops::Range, sync::Arc};

use burn::tensor::Tensor;
use rectify_protocol::ArchitectureKind;

use super::{
    At, Cache, Frame, Matrix, Shape, Tap, WeightSite,
    architecture::{Architecture, Build, Family, MlpMatrix, no_gate},
    attention::attend,
    config::{Config, HEADS, LAYERS, TOKENS, WIDTH, check_divides},
    embedding::Embedding,
    heads::Heads,
    parts::{GELU_TANH, LayerNorm, Linear},
    rope::{Pairs, Rope},
    tap::BlockTap,
    tensors::Tensors,
};
use crate::{
    Result,
    kernels::{Weight, gelu_tanh},
};

pub(super) const FAMILY: Family = Family {
    model_type: "gptj",
    kind: ArchitectureKind::GptJ,
    root: "transformer.",
    stores_transposed: true,
    read,
    is_embedding: |name| name.ends_with("wte.weight") || name == HEAD,
    // The causal mask, and what blocked scores are set to.
    is_buffer: |name| name.ends_with(".attn.bias") || name.ends_with(".attn.masked_bias"),
};

const HEAD: &str = "lm_head.weight";
const HEAD_BIAS: &str = "lm_head.bias";

/// What `config.json` says of a GPT-J.
#[derive(Clone)]
struct Sizes {
    d_model: usize,
    d_mlp: usize,
    heads: usize,
    layers: usize,
    context: usize,
    vocab: usize,
    epsilon: f64,
    tied: bool,
    /// How many columns of a head turn with its position.
    turning: usize,
}

fn read(config: &mut Config) -> Result<Build> {
    let d_model = config.size("n_embd", WIDTH)?;
    let sizes = Sizes {
        d_model,
        d_mlp: config.optional_size("n_inner", WIDTH)?.unwrap_or(4 * d_model),
        heads: config.size("n_head", HEADS)?,
        layers: config.size("n_layer", LAYERS)?,
        context: config.size("n_positions", TOKENS)?,
        vocab: config.size("vocab_size", TOKENS)?,
        epsilon: config.optional_number("layer_norm_epsilon")?.unwrap_or(1e-5),
        tied: config.flag("tie_word_embeddings", false)?,
        turning: config.size("rotary_dim", WIDTH)?,
    };
    config.text("activation_function", &GELU_TANH)?;
    if let Some(scaled) = config.value("scale_attn_weights").filter(|scaled| *scaled != true) {
        return config.refuse("scale_attn_weights", &scaled, "true is computed");
    }
    check_divides(("n_head", sizes.heads), ("n_embd", d_model))?;
    let d_head = d_model / sizes.heads;
    if sizes.turning > d_head || !sizes.turning.is_multiple_of(2) {
        let problem = format!("an even number up to {d_head}, the width of a head, is expected");
        return config.refuse("rotary_dim", &sizes.turning.into(), &problem);
    }
    Ok(Box::new(move |tensors| Ok(Arc::new(GptJ::load(sizes, tensors)?))))
}

/// The weights of a GPT-J. Its matrices are stored `[d_out, d_in]` and turned once, at load.
#[derive(Clone)]
struct GptJ {
    sizes: Sizes,
    prefix: &'static str,
    tokens: Embedding,
    blocks: Vec<Block>,
    final_norm: LayerNorm,
    head: Embedding,
    head_bias: Tensor<1>,
    rope: Rope,
}

#[derive(Clone)]
struct Block {
    norm: LayerNorm,
    /// Query, key and value side by side.
    attention_in: Linear,
    attention_out: Linear,
    up: Linear,
    down: Linear,
}

impl GptJ {
    fn load(sizes: Sizes, tensors: &mut Tensors) -> Result<Self> {
        let prefix = if tensors.has("transformer.wte.weight") { "transformer." } else { "" };
        let (d, d_mlp) = (sizes.d_model, sizes.d_mlp);
        let linear = |tensors: &mut Tensors, name: String, shape, bias| Linear::load(tensors, &name, shape, bias);
        let blocks = (0..sizes.layers).map(|layer| {
            let block = format!("{prefix}h.{layer}");
            Ok(Block {
                norm: LayerNorm::load(tensors, &format!("{block}.ln_1"), d, sizes.epsilon)?,
                attention_in: Linear::side_by_side([
                    linear(tensors, format!("{block}.attn.q_proj"), [d, d], false)?,
                    linear(tensors, format!("{block}.attn.k_proj"), [d, d], false)?,
                    linear(tensors, format!("{block}.attn.v_proj"), [d, d], false)?,
                ]),
                attention_out: linear(tensors, format!("{block}.attn.out_proj"), [d, d], false)?,
                up: linear(tensors, format!("{block}.mlp.fc_in"), [d, d_mlp], true)?,
                down: linear(tensors, format!("{block}.mlp.fc_out"), [d_mlp, d], true)?,
            })
        });
        let blocks = blocks.collect::<Result<_>>()?;
        let (tokens, head) =
            tensors.embedding_and_head(&format!("{prefix}wte.weight"), HEAD, [sizes.vocab, d], sizes.tied)?;
        let head_bias = tensors.vector(HEAD_BIAS, sizes.vocab)?;
        let final_norm = LayerNorm::load(tensors, &format!("{prefix}ln_f"), d, sizes.epsilon)?;
        let rope = Rope::new(sizes.turning, 10_000.0, Pairs::Neighbors);
        Ok(Self { prefix, tokens, blocks, final_norm, head, head_bias, rope, sizes })
    }
}

impl Architecture for GptJ {
    fn shape(&self) -> Shape {
        let Sizes { layers, heads, d_model, d_mlp, vocab, context, .. } = self.sizes;
        Shape { layers, heads, d_model, d_mlp, vocab, context, bounded_by: "n_positions" }
    }

    fn matrices(&self) -> &'static [MlpMatrix] {
        &[MlpMatrix::UP, MlpMatrix::DOWN]
    }

    fn embedding(&self) -> &Embedding {
        &self.tokens
    }

    fn embed(&self, tokens: &[u32], frame: &Frame) -> Tensor<3> {
        let [batch, pos] = frame.dims();
        self.tokens.rows(tokens, &self.tokens.device()).reshape([batch, pos, self.sizes.d_model])
    }

    fn run(
        &self,
        layers: Range<usize>,
        hidden: Tensor<3>,
        frame: &Frame,
        past: &mut Cache,
        tap: &mut dyn Tap,
    ) -> Tensor<3> {
        let [batch, pos, d] = hidden.dims();
        let (n_heads, d_head) = (self.sizes.heads, d / self.sizes.heads);
        let heads = Heads { batch, heads: n_heads, groups: n_heads, d_head };
        let scale = (d_head as f64).powf(-0.5);
        let rotation = self.rope.at(frame, &hidden.device().without_autodiff());
        let mut hidden = hidden.reshape([batch * pos, d]);
        for layer in layers {
            let block = &self.blocks[layer];
            let mut tap = BlockTap { tap: &mut *tap, layer, dims: [batch, pos] };
            let normed = block.norm.forward(hidden.clone());
            let joined = rotation.turn(block.attention_in.forward(normed.clone()), heads);
            let attended = attend(joined, &mut past.layers[layer], frame, heads, scale);
            let middle = block.attention_out.written_to(hidden, attended, &mut tap, At::AttnOut);
            let read = tap.see(At::MlpIn, normed);
            let pre = tap.see(At::MlpPre, block.up.forward(read));
            let key = tap.see(At::MlpKey, gelu_tanh(pre));
            let after = block.down.written_to(middle, key, &mut tap, At::MlpOut);
            hidden = tap.see(At::ResidPost, after);
        }
        hidden.reshape([batch, pos, d])
    }

    fn logits(&self, hidden: Tensor<2>) -> Tensor<2> {
        self.head.logits(&self.final_norm.forward(hidden)) + self.head_bias.clone().unsqueeze()
    }

    fn weight(&self, site: WeightSite) -> Weight {
        let block = &self.blocks[site.layer];
        match site.matrix {
            Matrix::MlpUp => block.up.weight.clone(),
            Matrix::MlpDown => block.down.weight.clone(),
            Matrix::MlpGate => no_gate(),
        }
    }

    fn with_weight(&self, site: WeightSite, weight: Tensor<2>) -> Arc<dyn Architecture> {
        let mut edited = self.clone();
        let block = &mut edited.blocks[site.layer];
        match site.matrix {
            Matrix::MlpUp => block.up = block.up.with(weight),
            Matrix::MlpDown => block.down = block.down.with(weight),
            Matrix::MlpGate => no_gate(),
        }
        Arc::new(edited)
    }

    fn name(&self, site: WeightSite) -> String {
        let (prefix, layer) = (self.prefix, site.layer);
        match site.matrix {
            Matrix::MlpUp => format!("{prefix}h.{layer}.mlp.fc_in.weight"),
            Matrix::MlpDown => format!("{prefix}h.{layer}.mlp.fc_out.weight"),
            Matrix::MlpGate => no_gate(),
        }
    }

    fn stores_transposed(&self) -> bool {
        true
    }
}
