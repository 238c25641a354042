//! Mistral, <https://arxiv.org/abs/2310.06825>: LLaMA's blocks, of which each looks back over a window only.
//!
//! Within the window it is LLaMA; longer texts are refused.

use rectify_protocol::ArchitectureKind;

use super::{
    architecture::Family,
    config::TOKENS,
    llama::{Own, Sizes, is_buffer, is_embedding},
};

pub(super) const FAMILY: Family = Family {
    model_type: "mistral",
    kind: ArchitectureKind::Mistral,
    root: "model.",
    stores_transposed: true,
    read: |config| {
        // `null` is no window; where the key is absent transformers takes 4096, and 8 groups.
        let silent = !config.has("sliding_window");
        let window = config.optional_size("sliding_window", TOKENS)?.or(silent.then_some(4096));
        let own = Own { window, groups: Some(8), context: 131_072, ..Own::default() };
        Sizes::read(config, own).map(Sizes::build)
    },
    is_embedding,
    is_buffer,
};
