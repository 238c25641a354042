//! `config.json`: every key is computed with, known to change no number, or refused by name.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::{Error, Result};

pub(super) const CONFIG: &str = "config.json";

/// Width of a vector, at most.
pub(super) const WIDTH: usize = 1 << 20;
/// Heads of a block and dimensions of a head, at most: their product fits 32 bits.
pub(super) const HEADS: usize = 1 << 12;
pub(super) const HEAD_WIDTH: usize = 1 << 16;
/// Blocks, at most.
pub(super) const LAYERS: usize = 1 << 12;
/// Tokens of a vocabulary or a context, at most.
pub(super) const TOKENS: usize = 1 << 24;

/// Keys of any architecture that change no number of a forward pass without dropout: names, versions, training,
/// what to return, how to sample, which tokens are special.
const HARMLESS: &[&str] = &[
    "_attn_implementation_autoset",
    "_from_model_config",
    "_name_or_path",
    "architectures",
    "attention_dropout",
    "attn_pdrop",
    "bos_token_id",
    "chunk_size_feed_forward",
    "do_sample",
    "dtype",
    "embd_pdrop",
    "eos_token_id",
    "finetuning_task",
    "gradient_checkpointing",
    "id2label",
    "initializer_range",
    "is_decoder",
    "is_llama_config",
    "label2id",
    "length_penalty",
    "max_length",
    "max_sequence_length",
    "min_length",
    "model_type",
    "n_ctx",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_return_sequences",
    "output_attentions",
    "output_hidden_states",
    "output_past",
    "output_scores",
    "pad_token_id",
    "prefix",
    "pretraining_tp",
    "problem_type",
    "reorder_and_upcast_attn",
    "repetition_penalty",
    "resid_pdrop",
    "return_dict",
    "return_dict_in_generate",
    "rotary",
    "summary_activation",
    "summary_first_dropout",
    "summary_proj_to_labels",
    "summary_type",
    "summary_use_proj",
    "task_specific_params",
    "temperature",
    "tf_legacy_loss",
    "tokenizer_class",
    "top_k",
    "top_p",
    "torch_dtype",
    "torchscript",
    "transformers.js_config",
    "transformers_version",
    "typical_p",
    "unsloth_fixed",
    "unsloth_version",
    "use_bfloat16",
    "use_cache",
];

/// Whether a value is the one that changes nothing.
type Test = fn(&Value) -> bool;

/// Keys that change numbers, or what is loaded, in a way that no architecture here computes, with the one value at
/// which they do not.
const OFF: &[(&str, Test, &str)] = &[
    ("add_cross_attention", is_false, "false"),
    ("is_encoder_decoder", is_false, "false"),
    ("pruned_heads", is_empty, "{}"),
    ("quantization_config", |_| false, "nothing: quantised weights are not read, a full-precision copy is"),
    ("rope_interleaved", is_false, "false"),
    ("use_mrope", is_false, "false"),
];

fn is_false(value: &Value) -> bool {
    *value == Value::Bool(false)
}

fn is_empty(value: &Value) -> bool {
    value.as_object().is_some_and(Map::is_empty)
}

/// The keys of a `config.json`, which remembers those that were asked for. A key that is `null` is as good as absent.
pub(super) struct Config {
    /// Where the keys stand, for messages: empty, or the key of the object they are in and a dot.
    within: String,
    values: Map<String, Value>,
    asked: BTreeSet<String>,
}

impl Config {
    pub fn from_json(bytes: &[u8]) -> Result<Self> {
        let values = serde_json::from_slice(bytes).map_err(|error| Error::bad_file(CONFIG, error.to_string()))?;
        Ok(Self::of(values, String::new()))
    }

    fn of(values: Map<String, Value>, within: String) -> Self {
        Self { within, values, asked: BTreeSet::new() }
    }

    /// Forgets a key. Whether there was one.
    pub fn ignore(&mut self, key: &str) -> bool {
        self.values.remove(key).is_some()
    }

    /// Whether the key is there at all, be it `null`.
    pub fn has(&self, key: &str) -> bool {
        self.values.contains_key(key)
    }

    /// The key's value, unless it is `null`.
    pub fn value(&mut self, key: &str) -> Option<Value> {
        self.asked.insert(key.to_owned());
        self.values.get(key).filter(|value| !value.is_null()).cloned()
    }

    /// The object at a key, its own keys counted like these.
    pub fn object(&mut self, key: &str) -> Result<Option<Self>> {
        let within = format!("{}{key}.", self.within);
        match self.value(key) {
            None => Ok(None),
            Some(Value::Object(values)) => Ok(Some(Self::of(values, within))),
            Some(other) => self.refuse(key, &other, "an object is expected"),
        }
    }

    /// A whole number from 1 to `most`.
    pub fn size(&mut self, key: &str, most: usize) -> Result<usize> {
        self.optional_size(key, most)?.ok_or_else(|| Error::bad_file(CONFIG, format!("has no {}{key}", self.within)))
    }

    /// The same, where the key may be absent.
    pub fn optional_size(&mut self, key: &str, most: usize) -> Result<Option<usize>> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let size = value.as_u64().and_then(|size| usize::try_from(size).ok()).filter(|size| (1..=most).contains(size));
        match size {
            Some(size) => Ok(Some(size)),
            None => self.refuse(key, &value, &format!("a whole number from 1 to {most} is expected")),
        }
    }

    /// A finite number above zero.
    pub fn optional_number(&mut self, key: &str) -> Result<Option<f64>> {
        let Some(value) = self.value(key) else { return Ok(None) };
        match value.as_f64().filter(|number| number.is_finite() && *number > 0.0) {
            Some(number) => Ok(Some(number)),
            None => self.refuse(key, &value, "a finite number above 0 is expected"),
        }
    }

    /// Yes or no; `default` where the key is absent.
    pub fn flag(&mut self, key: &str, default: bool) -> Result<bool> {
        match self.value(key) {
            None => Ok(default),
            Some(Value::Bool(flag)) => Ok(flag),
            Some(other) => self.refuse(key, &other, "true or false is expected"),
        }
    }

    /// Complains about a text that is none of `computed`. An absent one stands for the first.
    pub fn text(&mut self, key: &str, computed: &[&str]) -> Result<()> {
        let Some(value) = self.value(key) else { return Ok(()) };
        if value.as_str().is_some_and(|text| computed.contains(&text)) {
            return Ok(());
        }
        let computed: Vec<String> = computed.iter().map(|text| format!("{text:?}")).collect();
        self.refuse(key, &value, &format!("{} is computed", computed.join(" or ")))
    }

    /// Says why a key's value cannot be used.
    pub fn refuse<T>(&self, key: &str, value: &Value, problem: &str) -> Result<T> {
        Err(Error::bad_file(CONFIG, format!("{}{key} is {}; {problem}", self.within, shortened(value))))
    }

    /// Complains about keys that nobody asked for, unless they change no number.
    pub fn finish(&self) -> Result<()> {
        for (key, value) in self.values.iter().filter(|(key, value)| !value.is_null() && !self.asked.contains(*key)) {
            if let Some((_, holds, computed)) = OFF.iter().find(|(off, ..)| off == key) {
                if !holds(value) {
                    return self.refuse(key, value, &format!("computed is {computed}"));
                }
            } else if !(self.within.is_empty() && HARMLESS.contains(&key.as_str())) {
                return self.refuse(key, value, "it is not known whether this key changes what the model computes");
            }
        }
        Ok(())
    }
}

/// A value as JSON, cut where it is long.
fn shortened(value: &Value) -> String {
    const LONG: usize = 80;
    let text = value.to_string();
    match text.char_indices().nth(LONG) {
        None => text,
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

/// Complains when `parts` does not divide `whole`.
pub(super) fn check_divides((part_name, part): (&str, usize), (whole_name, whole): (&str, usize)) -> Result<()> {
    if whole.is_multiple_of(part) {
        return Ok(());
    }
    Err(Error::bad_file(CONFIG, format!("{part_name} {part} does not divide {whole_name} {whole}")))
}

/// The tokens that end a text: those of `generation_config.json` where it names any, else those of `config.json`.
/// A negative id is no token.
pub(super) fn end_tokens(config: &mut Config, generation_config: Option<&[u8]>) -> Result<Vec<u32>> {
    const GENERATION: &str = "generation_config.json";
    let of_generation: Option<Map<String, Value>> = generation_config
        .map(serde_json::from_slice)
        .transpose()
        .map_err(|error| Error::bad_file(GENERATION, error.to_string()))?;
    let of_generation = of_generation.and_then(|mut values| values.remove("eos_token_id")).filter(|v| !v.is_null());
    let (file, value) = match of_generation {
        Some(value) => (GENERATION, value),
        None => (CONFIG, config.value("eos_token_id").unwrap_or_else(|| Value::Array(Vec::new()))),
    };
    let listed = match &value {
        Value::Array(ids) => ids.as_slice(),
        one => std::slice::from_ref(one),
    };
    let ids = listed.iter().map(|id| id.as_i64().filter(|id| *id <= i64::from(u32::MAX)));
    let ids: Option<Vec<i64>> = ids.collect();
    let ids = ids.ok_or_else(|| {
        Error::bad_file(
            file,
            format!("eos_token_id is {}; a token's id or a list of them is expected", shortened(&value)),
        )
    })?;
    Ok(ids.into_iter().filter_map(|id| u32::try_from(id).ok()).collect())
}
