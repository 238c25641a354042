//! GPT-2, <https://huggingface.co/docs/transformers/model_doc/gpt2>: the whole architecture, top to bottom.

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
    tap::BlockTap,
    tensors::Tensors,
};
use crate::{
    Result,
    kernels::{Weight, gelu_tanh},
};

pub(super) const FAMILY: Family = Family {
    model_type: "gpt2",
    kind: ArchitectureKind::Gpt2,
    root: "transformer.",
    stores_transposed: false,
    read,
    is_embedding: |name| name.ends_with("wte.weight") || name.ends_with("wpe.weight") || name == HEAD,
    // The causal mask, and what blocked scores are set to.
    is_buffer: |name| name.ends_with(".attn.bias") || name.ends_with(".attn.masked_bias"),
};

const HEAD: &str = "lm_head.weight";

/// What `config.json` says of a GPT-2.
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
    /// Whether scores are divided by the root of a head's width, and by the number of the layer.
    scale_by_width: bool,
    scale_by_layer: bool,
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
        tied: config.flag("tie_word_embeddings", true)?,
        scale_by_width: config.flag("scale_attn_weights", true)?,
        scale_by_layer: config.flag("scale_attn_by_inverse_layer_idx", false)?,
    };
    config.text("activation_function", &GELU_TANH)?;
    check_divides(("n_head", sizes.heads), ("n_embd", d_model))?;
    Ok(Box::new(move |tensors| Ok(Arc::new(Gpt2::load(sizes, tensors)?))))
}

/// The weights of a GPT-2. Its `Conv1D` matrices are stored `[d_in, d_out]`, as they are used here.
#[derive(Clone)]
struct Gpt2 {
    sizes: Sizes,
    /// `transformer.` in checkpoints saved with their head, nothing in OpenAI's.
    prefix: &'static str,
    tokens: Embedding,
    /// `[context, d_model]`
    positions: Tensor<2>,
    blocks: Vec<Block>,
    final_norm: LayerNorm,
    /// The token embedding again where the head is tied.
    head: Embedding,
}

#[derive(Clone)]
struct Block {
    attention_norm: LayerNorm,
    /// Query, key and value side by side: `[d_model, 3 d_model]`.
    attention_in: Linear,
    attention_out: Linear,
    mlp_norm: LayerNorm,
    up: Linear,
    down: Linear,
}

impl Gpt2 {
    fn load(sizes: Sizes, tensors: &mut Tensors) -> Result<Self> {
        let prefix = if tensors.has("transformer.wte.weight") { "transformer." } else { "" };
        let (d, d_mlp) = (sizes.d_model, sizes.d_mlp);
        let norm = |tensors: &mut Tensors, name: String| LayerNorm::load(tensors, &name, d, sizes.epsilon);
        let linear = |tensors: &mut Tensors, name: String, shape| Linear::load(tensors, &name, shape, true);
        let blocks = (0..sizes.layers).map(|layer| {
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
        let blocks = blocks.collect::<Result<_>>()?;
        let (tokens, head) =
            tensors.embedding_and_head(&format!("{prefix}wte.weight"), HEAD, [sizes.vocab, d], sizes.tied)?;
        let positions = tensors.table(&format!("{prefix}wpe.weight"), [sizes.context, d])?;
        let final_norm = norm(tensors, format!("{prefix}ln_f"))?;
        Ok(Self { prefix, tokens, positions, blocks, final_norm, head, sizes })
    }

    /// What a block's attention scores are multiplied with.
    fn scale(&self, layer: usize) -> f64 {
        let Sizes { d_model, heads, scale_by_width, scale_by_layer, .. } = self.sizes;
        let by_width = if scale_by_width { ((d_model / heads) as f64).powf(-0.5) } else { 1.0 };
        if scale_by_layer { by_width / (layer + 1) as f64 } else { by_width }
    }
}

impl Architecture for Gpt2 {
    fn shape(&self) -> Shape {
        let Sizes { layers, heads, d_model, d_mlp, vocab, context, .. } = self.sizes;
        Shape { layers, heads, d_model, d_mlp, vocab, context, bounded_by: "n_positions" }
    }

    fn matrices(&self) -> &'static [MlpMatrix] {
        &[MlpMatrix::DOWN, MlpMatrix::UP]
    }

    fn embedding(&self) -> &Embedding {
        &self.tokens
    }

    fn embed(&self, tokens: &[u32], frame: &Frame) -> Tensor<3> {
        let [batch, pos] = frame.dims();
        let tokens = self.tokens.rows(tokens, &self.tokens.device());
        let positions = self.positions.clone().select(0, frame.position_ids());
        (tokens + positions).reshape([batch, pos, self.sizes.d_model])
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
        let n_heads = self.sizes.heads;
        let heads = Heads { batch, heads: n_heads, groups: n_heads, d_head: d / n_heads };
        // The batch and its positions are one dimension: every product is one matrix product.
        let mut hidden = hidden.reshape([batch * pos, d]);
        for layer in layers {
            let block = &self.blocks[layer];
            let mut tap = BlockTap { tap: &mut *tap, layer, dims: [batch, pos] };
            let joined = block.attention_in.forward(block.attention_norm.forward(hidden.clone()));
            let attended = attend(joined, &mut past.layers[layer], frame, heads, self.scale(layer));
            let middle = block.attention_out.written_to(hidden, attended, &mut tap, At::AttnOut);
            let read = tap.see(At::MlpIn, block.mlp_norm.forward(middle.clone()));
            let pre = tap.see(At::MlpPre, block.up.forward(read));
            let key = tap.see(At::MlpKey, gelu_tanh(pre));
            let after = block.down.written_to(middle, key, &mut tap, At::MlpOut);
            hidden = tap.see(At::ResidPost, after);
        }
        hidden.reshape([batch, pos, d])
    }

    fn logits(&self, hidden: Tensor<2>) -> Tensor<2> {
        self.head.logits(&self.final_norm.forward(hidden))
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
            Matrix::MlpUp => format!("{prefix}h.{layer}.mlp.c_fc.weight"),
            Matrix::MlpDown => format!("{prefix}h.{layer}.mlp.c_proj.weight"),
            Matrix::MlpGate => no_gate(),
        }
    }

    fn stores_transposed(&self) -> bool {
        false
    }
}
