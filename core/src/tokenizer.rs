//! Text and token ids: where a subject ends, and where the space before a target goes.

use crate::{Error, Result};

/// A model's vocabulary, as its `tokenizer.json` defines it.
#[derive(Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// SentencePiece puts a space of its own before every text.
    dummy_prefix: bool,
}

impl Tokenizer {
    /// Reads the bytes of a `tokenizer.json`.
    ///
    /// # Errors
    ///
    /// When the bytes are not such a file.
    pub fn from_json(bytes: &[u8]) -> Result<Self> {
        let inner = tokenizers::Tokenizer::from_bytes(bytes)
            .map_err(|error| Error::bad_file("tokenizer.json", error.to_string()))?;
        let dummy_prefix = inner
            .encode_fast("a", false)
            .is_ok_and(|encoding| encoding.get_tokens().first().is_some_and(|token| token.starts_with('▁')));
        Ok(Self { inner, dummy_prefix })
    }

    /// Tokens in the vocabulary, added ones included.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// The ids of a text that begins a sequence, with the tokens the model expects in front (LLaMA's BOS).
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        self.ids(text, true)
    }

    /// The ids of an answer that follows a prompt: one space before it, whether or not it was written.
    ///
    /// SentencePiece's own space would make it two, an extra piece `▁` that the reference leaves in; it is dropped.
    ///
    /// # Errors
    ///
    /// When nothing remains to be predicted.
    pub fn encode_target(&self, target: &str) -> Result<Vec<u32>> {
        let mut ids = self.ids(&spaced(target), false)?;
        let doubled = self.dummy_prefix && ids.len() > 1 && self.inner.id_to_token(ids[0]).as_deref() == Some("▁");
        if doubled {
            ids.remove(0);
        }
        if ids.is_empty() {
            return Err(Error::bad_input(format!("the target {target:?} has no tokens")));
        }
        Ok(ids)
    }

    /// The text of `ids`, without special tokens.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        self.inner.decode(ids, true).map_err(|error| Error::bad_input(format!("cannot decode tokens: {error}")))
    }

    /// The token that ends a text, by its usual names; 0 where the vocabulary has none of them.
    pub(crate) fn end_of_text(&self) -> u32 {
        ["<|endoftext|>", "</s>"].iter().find_map(|name| self.inner.token_to_id(name)).unwrap_or(0)
    }

    fn ids(&self, text: &str, special: bool) -> Result<Vec<u32>> {
        let encoding = self
            .inner
            .encode_fast(text, special)
            .map_err(|error| Error::bad_input(format!("cannot tokenize {text:?}: {error}")))?;
        Ok(encoding.get_ids().to_vec())
    }
}

/// `target` with exactly one space in front.
pub fn spaced(target: &str) -> String {
    format!(" {}", target.trim_start())
}
