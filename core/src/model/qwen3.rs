//! Qwen3, <https://arxiv.org/abs/2505.09388>, dense: LLaMA's blocks with a norm on each head's query and key.

use rectify_protocol::ArchitectureKind;

use super::{
    architecture::Family,
    llama::{Biases, Own, Sizes, is_buffer, is_embedding},
    qwen2::{SILENT, window},
};

pub(super) const FAMILY: Family = Family {
    model_type: "qwen3",
    kind: ArchitectureKind::Qwen3,
    root: "model.",
    stores_transposed: true,
    read: |config| {
        let biases = config.flag("attention_bias", false)?;
        let biases = Biases { query_key_value: biases, output: biases, mlp: false };
        let window = window(config)?;
        let own = Own { biases, head_norms: true, d_head: Some(128), window, ..SILENT };
        Sizes::read(config, own).map(Sizes::build)
    },
    is_embedding,
    is_buffer,
};
