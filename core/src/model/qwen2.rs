//! Qwen2 and Qwen2.5, <https://arxiv.org/abs/2407.10671>: LLaMA's blocks with biases on query, key and value.

use rectify_protocol::ArchitectureKind;

use super::{
    architecture::Family,
    config::{Config, LAYERS, TOKENS},
    llama::{Biases, Own, Sizes, is_buffer, is_embedding},
};
use crate::Result;

pub(super) const FAMILY: Family = Family {
    model_type: "qwen2",
    kind: ArchitectureKind::Qwen2,
    root: "model.",
    stores_transposed: true,
    read: |config| {
        let biases = Biases { query_key_value: true, ..Biases::default() };
        let window = window(config)?;
        Sizes::read(config, Own { biases, window, ..SILENT }).map(Sizes::build)
    },
    is_embedding,
    is_buffer,
};

/// What transformers takes where a Qwen's `config.json` is silent.
pub(super) const SILENT: Own = Own {
    biases: Biases { query_key_value: false, output: false, mlp: false },
    head_norms: false,
    groups: Some(32),
    d_head: None,
    context: 32_768,
    window: None,
};

/// How far back some block looks, where one does not look back over everything.
pub(super) fn window(config: &mut Config) -> Result<Option<usize>> {
    let silent = !config.has("sliding_window");
    let window = config.optional_size("sliding_window", TOKENS)?.or(silent.then_some(4096));
    let used = config.flag("use_sliding_window", false)?;
    let first = config.optional_size("max_window_layers", LAYERS)?.unwrap_or(28);
    let types = config.value("layer_types");
    let slides = match &types {
        None => first < config.size("num_hidden_layers", LAYERS)?,
        Some(types) => {
            let known = ["full_attention", "sliding_attention"];
            let listed = types.as_array().filter(|listed| {
                listed.iter().all(|of_layer| of_layer.as_str().is_some_and(|of_layer| known.contains(&of_layer)))
            });
            match listed {
                Some(listed) => listed.iter().any(|of_layer| of_layer == "sliding_attention"),
                None => {
                    return config.refuse(
                        "layer_types",
                        types,
                        "a list of \"full_attention\" and \"sliding_attention\" is expected",
                    );
                }
            }
        }
    };
    Ok(window.filter(|_| used && slides))
}
