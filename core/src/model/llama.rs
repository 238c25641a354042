//! LLaMA, <https://arxiv.org/abs/2302.13971>, from the first to Llama 3, and the blocks that Mistral and Qwen share
//! with it: grouped heads, rotary positions, a gated MLP.

use std::{ops::Range, sync::Arc};

use burn::tensor::Tensor;
use rectify_protocol::ArchitectureKind;

use super::{
    At, Cache, Frame, Matrix, Shape, Tap, WeightSite,
    architecture::{Architecture, Build, Family, MlpMatrix},
    attention::attend,
    config::{Config, HEAD_WIDTH, HEADS, LAYERS, TOKENS, WIDTH, check_divides},
    embedding::Embedding,
    heads::Heads,
    parts::{Linear, RmsNorm},
    rope::Rope,
    tap::BlockTap,
    tensors::Tensors,
};
use crate::{
    Result,
    kernels::{Weight, silu_gate},
};

pub(super) const FAMILY: Family = Family {
    model_type: "llama",
    kind: ArchitectureKind::Llama,
    root: "model.",
    stores_transposed: true,
    read: |config| {
        let biases = config.flag("attention_bias", false)?;
        let mlp = config.flag("mlp_bias", false)?;
        let own = Own { biases: Biases { query_key_value: biases, output: biases, mlp }, ..Own::default() };
        Sizes::read(config, own).map(Sizes::build)
    },
    is_embedding,
    is_buffer,
};

/// Whether a tensor of these families is an embedding.
pub(super) fn is_embedding(name: &str) -> bool {
    name.ends_with("embed_tokens.weight") || name == HEAD
}

/// The frequencies of rotations, which are computed here.
pub(super) fn is_buffer(name: &str) -> bool {
    name.ends_with("rotary_emb.inv_freq")
}

const HEAD: &str = "lm_head.weight";

/// What distinguishes a family that has these blocks.
#[derive(Clone, Copy)]
pub(super) struct Own {
    pub biases: Biases,
    /// Whether each head's query and key pass a norm of their own before they turn.
    pub head_norms: bool,
    /// What transformers takes where `config.json` is silent; as many groups as heads, and their share of the width.
    pub groups: Option<usize>,
    pub d_head: Option<usize>,
    pub context: usize,
    /// How far a token looks back, where that is less than the context.
    pub window: Option<usize>,
}

impl Default for Own {
    fn default() -> Self {
        Self { biases: Biases::default(), head_norms: false, groups: None, d_head: None, context: 2048, window: None }
    }
}

/// Which linear maps of a block have a bias.
#[derive(Clone, Copy, Default)]
pub(super) struct Biases {
    pub query_key_value: bool,
    pub output: bool,
    pub mlp: bool,
}

/// What `config.json` says.
#[derive(Clone)]
pub(super) struct Sizes {
    d_model: usize,
    d_mlp: usize,
    layers: usize,
    heads: usize,
    groups: usize,
    d_head: usize,
    vocab: usize,
    context: usize,
    epsilon: f64,
    tied: bool,
    rope: Rope,
    own: Own,
}

impl Sizes {
    /// Asks for the keys that all these families share.
    pub fn read(config: &mut Config, own: Own) -> Result<Self> {
        let d_model = config.size("hidden_size", WIDTH)?;
        let heads = config.size("num_attention_heads", HEADS)?;
        let d_head = match config.optional_size("head_dim", HEAD_WIDTH)?.or(own.d_head) {
            Some(d_head) => d_head,
            None => {
                check_divides(("num_attention_heads", heads), ("hidden_size", d_model))?;
                d_model / heads
            }
        };
        if !d_head.is_multiple_of(2) {
            return config.refuse("head_dim", &d_head.into(), "an even number is expected: columns turn in pairs");
        }
        let sizes = Self {
            d_model,
            d_mlp: config.size("intermediate_size", WIDTH)?,
            layers: config.size("num_hidden_layers", LAYERS)?,
            heads,
            groups: config.optional_size("num_key_value_heads", HEADS)?.or(own.groups).unwrap_or(heads),
            d_head,
            vocab: config.size("vocab_size", TOKENS)?,
            context: config.optional_size("max_position_embeddings", TOKENS)?.unwrap_or(own.context),
            epsilon: config.optional_number("rms_norm_eps")?.unwrap_or(1e-6),
            tied: config.flag("tie_word_embeddings", false)?,
            rope: Rope::from_config(config, d_head)?,
            own,
        };
        config.text("hidden_act", &["silu"])?;
        check_divides(("num_key_value_heads", sizes.groups), ("num_attention_heads", heads))?;
        Ok(sizes)
    }

    /// How a model of these sizes is made.
    pub fn build(self) -> Build {
        Box::new(move |tensors| Ok(Arc::new(Llama::load(self, tensors)?)))
    }
}

/// The weights of a LLaMA. Its `Linear` matrices are stored `[d_out, d_in]` and turned once, at load.
#[derive(Clone)]
struct Llama {
    sizes: Sizes,
    /// `model.` in checkpoints saved with their head.
    prefix: &'static str,
    tokens: Embedding,
    blocks: Vec<Block>,
    final_norm: RmsNorm,
    /// The token embedding again where the head is tied.
    head: Embedding,
}

#[derive(Clone)]
struct Block {
    attention_norm: RmsNorm,
    /// Query, key and value side by side.
    attention_in: Linear,
    /// Of each head's query and of its key.
    head_norms: Option<(RmsNorm, RmsNorm)>,
    attention_out: Linear,
    mlp_norm: RmsNorm,
    gate: Linear,
    up: Linear,
    down: Linear,
}

impl Llama {
    fn load(sizes: Sizes, tensors: &mut Tensors) -> Result<Self> {
        let prefix = if tensors.has("model.embed_tokens.weight") { "model." } else { "" };
        let d = sizes.d_model;
        let blocks = (0..sizes.layers).map(|layer| Block::load(&sizes, &format!("{prefix}layers.{layer}"), tensors));
        let blocks = blocks.collect::<Result<Vec<_>>>()?;
        let embedding = format!("{prefix}embed_tokens.weight");
        let (tokens, head) = tensors.embedding_and_head(&embedding, HEAD, [sizes.vocab, d], sizes.tied)?;
        let final_norm = RmsNorm::load(tensors, &format!("{prefix}norm"), d, sizes.epsilon)?;
        Ok(Self { prefix, tokens, blocks, final_norm, head, sizes })
    }
}

impl Architecture for Llama {
    fn shape(&self) -> Shape {
        let Sizes { layers, heads, d_model, d_mlp, vocab, context, own, .. } = self.sizes;
        let (context, bounded_by) = match own.window {
            Some(window) if window < context => (window, "sliding_window"),
            _ => (context, "max_position_embeddings"),
        };
        Shape { layers, heads, d_model, d_mlp, vocab, context, bounded_by }
    }

    fn matrices(&self) -> &'static [MlpMatrix] {
        &[MlpMatrix::GATE, MlpMatrix::GATED_UP, MlpMatrix::DOWN]
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
        let Sizes { heads, groups, d_head, ref rope, .. } = self.sizes;
        let heads = Heads { batch, heads, groups, d_head };
        let scale = (d_head as f64).powf(-0.5);
        let rotation = rope.at(frame, &hidden.device().without_autodiff());
        // The batch and its positions are one dimension: every product is one matrix product.
        let mut hidden = hidden.reshape([batch * pos, d]);
        for layer in layers {
            let block = &self.blocks[layer];
            let mut tap = BlockTap { tap: &mut *tap, layer, dims: [batch, pos] };
            let joined = block.attention_in.forward(block.attention_norm.forward(hidden.clone()));
            let joined = rotation.turn(block.norm_heads(joined, heads), heads);
            let attended = attend(joined, &mut past.layers[layer], frame, heads, scale);
            let middle = block.attention_out.written_to(hidden, attended, &mut tap, At::AttnOut);
            let read = tap.see(At::MlpIn, block.mlp_norm.forward(middle.clone()));
            let gate = tap.see(At::MlpPre, block.gate.forward(read.clone()));
            let up = tap.see(At::MlpUp, block.up.forward(read));
            let key = tap.see(At::MlpKey, silu_gate(gate, up));
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
            Matrix::MlpGate => block.gate.weight.clone(),
            Matrix::MlpUp => block.up.weight.clone(),
            Matrix::MlpDown => block.down.weight.clone(),
        }
    }

    fn with_weight(&self, site: WeightSite, weight: Tensor<2>) -> Arc<dyn Architecture> {
        let mut edited = self.clone();
        let block = &mut edited.blocks[site.layer];
        match site.matrix {
            Matrix::MlpGate => block.gate = block.gate.with(weight),
            Matrix::MlpUp => block.up = block.up.with(weight),
            Matrix::MlpDown => block.down = block.down.with(weight),
        }
        Arc::new(edited)
    }

    fn name(&self, site: WeightSite) -> String {
        let matrix = match site.matrix {
            Matrix::MlpGate => "gate",
            Matrix::MlpUp => "up",
            Matrix::MlpDown => "down",
        };
        format!("{}layers.{}.mlp.{matrix}_proj.weight", self.prefix, site.layer)
    }

    fn stores_transposed(&self) -> bool {
        true
    }
}

impl Block {
    fn load(sizes: &Sizes, block: &str, tensors: &mut Tensors) -> Result<Self> {
        let (d, d_mlp, d_head) = (sizes.d_model, sizes.d_mlp, sizes.d_head);
        let (d_query, d_groups) = (d_head * sizes.heads, d_head * sizes.groups);
        let Own { biases, head_norms, .. } = sizes.own;
        let (attention, mlp) = (format!("{block}.self_attn"), format!("{block}.mlp"));
        let norm = |tensors: &mut Tensors, name: &str, d| RmsNorm::load(tensors, name, d, sizes.epsilon);
        let linear = |tensors: &mut Tensors, name: String, shape, bias| Linear::load(tensors, &name, shape, bias);
        let head_norm = |tensors: &mut Tensors, of: &str| norm(tensors, &format!("{attention}.{of}_norm"), d_head);
        Ok(Self {
            attention_norm: norm(tensors, &format!("{block}.input_layernorm"), d)?,
            attention_in: Linear::side_by_side([
                linear(tensors, format!("{attention}.q_proj"), [d, d_query], biases.query_key_value)?,
                linear(tensors, format!("{attention}.k_proj"), [d, d_groups], biases.query_key_value)?,
                linear(tensors, format!("{attention}.v_proj"), [d, d_groups], biases.query_key_value)?,
            ]),
            head_norms: match head_norms {
                true => Some((head_norm(tensors, "q")?, head_norm(tensors, "k")?)),
                false => None,
            },
            attention_out: linear(tensors, format!("{attention}.o_proj"), [d_query, d], biases.output)?,
            mlp_norm: norm(tensors, &format!("{block}.post_attention_layernorm"), d)?,
            gate: linear(tensors, format!("{mlp}.gate_proj"), [d, d_mlp], biases.mlp)?,
            up: linear(tensors, format!("{mlp}.up_proj"), [d, d_mlp], biases.mlp)?,
            down: linear(tensors, format!("{mlp}.down_proj"), [d_mlp, d], biases.mlp)?,
        })
    }

    /// Queries and keys after the norms of their own, where they have any.
    fn norm_heads(&self, joined: Tensor<2>, heads: Heads) -> Tensor<2> {
        let Some((query_norm, key_norm)) = &self.head_norms else { return joined };
        let Heads { heads, groups, d_head, .. } = heads;
        let [rows, columns] = joined.dims();
        let part = |first: usize, n: usize, norm: &RmsNorm| {
            let of_heads = joined.clone().narrow(1, first * d_head, n * d_head).reshape([rows * n, d_head]);
            norm.forward(of_heads).reshape([rows, n * d_head])
        };
        let before = (heads + groups) * d_head;
        let values = joined.clone().narrow(1, before, columns - before);
        Tensor::cat(vec![part(0, heads, query_norm), part(heads, groups, key_norm), values], 1)
    }
}
