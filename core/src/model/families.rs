//! The table of families: each is a file beside this one, and a line here.

use super::{architecture::Family, gpt2, gptj, llama, mistral, qwen2, qwen3};

/// Every family whose checkpoints are read.
pub(super) const FAMILIES: &[Family] =
    &[gpt2::FAMILY, llama::FAMILY, mistral::FAMILY, qwen2::FAMILY, qwen3::FAMILY, gptj::FAMILY];
