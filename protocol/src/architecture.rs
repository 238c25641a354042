use serde::{Deserialize, Serialize};

/// The model families there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ArchitectureKind {
    /// GPT-2, <https://huggingface.co/docs/transformers/model_doc/gpt2>.
    Gpt2,
    /// LLaMA 1, 2 and 3, <https://arxiv.org/abs/2302.13971>.
    Llama,
    /// Mistral, <https://arxiv.org/abs/2310.06825>.
    Mistral,
    /// Qwen2 and 2.5, <https://arxiv.org/abs/2407.10671>.
    Qwen2,
    /// Qwen3, dense, <https://arxiv.org/abs/2505.09388>.
    Qwen3,
    /// GPT-J, <https://github.com/kingoflolz/mesh-transformer-jax>.
    #[serde(rename = "gptj")]
    GptJ,
}
