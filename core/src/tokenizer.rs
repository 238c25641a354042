//! Text and token ids: where a subject ends, and which tokens an answer is.

use std::ops::Range;

use crate::{Error, Result};

const FILE: &str = "tokenizer.json";

/// A model's vocabulary, as its `tokenizer.json` defines it.
#[derive(Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// What every text begins with: LLaMA's `<s>`.
    begin: Vec<u32>,
}

/// A prompt and the answer that follows it, as the model reads and says them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Followed {
    /// The ids of the prompt, special ones included.
    pub prompt: Vec<u32>,
    /// The ids that a model would have to say after these; at least one.
    pub target: Vec<u32>,
}

/// Refuses what cannot be read twice in the same way, and what the reader would panic on: text that is no JSON or nested
/// too deeply, and the table that SentencePiece compiles its normalizer to, in which wrong offsets are followed. No family
/// here has one.
fn readable(bytes: &[u8]) -> std::result::Result<(), String> {
    #[derive(serde::Deserialize)]
    struct Parts {
        #[serde(default)]
        normalizer: serde_json::Value,
        #[serde(default)]
        model: Model,
        // Read here, it is an error where it is nested too deeply.
        #[serde(default, rename = "decoder")]
        _decoder: serde_json::Value,
    }
    #[derive(Default, serde::Deserialize)]
    struct Model {
        #[serde(default)]
        dropout: Option<f64>,
    }
    fn compiled(normalizer: &serde_json::Value) -> bool {
        normalizer["type"] == "Precompiled"
            || normalizer["normalizers"].as_array().is_some_and(|several| several.iter().any(compiled))
    }
    let Parts { normalizer, model, .. } = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if let Some(dropout) = model.dropout.filter(|dropout| *dropout != 0.0) {
        return Err(format!("its model has dropout {dropout}, so that a text has other tokens each time it is read"));
    }
    if compiled(&normalizer) {
        return Err("its normalizer is \"Precompiled\", a table of SentencePiece's, which is not read".into());
    }
    Ok(())
}

impl Tokenizer {
    /// Reads the bytes of a `tokenizer.json`.
    ///
    /// How to cut and pad texts is the business of whoever asks, so what the file says of that is left out of account.
    /// Of the special tokens that it puts around a text, those in front are kept: a text is asked before it ends.
    ///
    /// # Errors
    ///
    /// When the bytes are not such a file.
    pub fn from_json(bytes: &[u8]) -> Result<Self> {
        let refuse = |problem: String| Error::bad_file(FILE, problem);
        readable(bytes).map_err(refuse)?;
        let read = || tokenizers::Tokenizer::from_bytes(bytes).map_err(|error| refuse(error.to_string()));
        let mut inner = guarded(read)?;
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|error| refuse(error.to_string()))?;
        let mut tokenizer = Self { inner, begin: Vec::new() };
        let (alone, around) = (tokenizer.ids("a", false)?, tokenizer.ids("a", true)?);
        let from = around.windows(alone.len().max(1)).position(|ids| ids == alone);
        let from = from.ok_or_else(|| {
            refuse(format!(
                "its post-processor makes {around:?} of the tokens {alone:?}; tokens around them are expected"
            ))
        })?;
        tokenizer.begin = around[..from].to_vec();
        Ok(tokenizer)
    }

    /// How many rows an embedding needs for this vocabulary: the largest id and one, added tokens included.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab(true).into_values().max().map_or(0, |largest| largest as usize + 1)
    }

    /// The ids of a text that begins a sequence, with the tokens the model expects in front (LLaMA's BOS).
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        Ok([self.begin.as_slice(), &self.ids(text, false)?].concat())
    }

    /// What [`Self::encode`] puts in front of every text.
    pub fn begin(&self) -> &[u32] {
        &self.begin
    }

    /// The ids of a prompt, and those of an answer that follows it after one space, whether or not it was written.
    ///
    /// They are the tokens of the whole text, cut where the prompt ends. Where a token lies across that cut, which no
    /// model could say that was asked the prompt alone, the answer's tokens are those it has after any other word.
    ///
    /// # Errors
    ///
    /// When the prompt has no tokens, or the target is blank.
    pub fn followed(&self, prompt: &str, target: &str) -> Result<Followed> {
        let text = spaced(target);
        let before = self.encode(prompt)?;
        if before.is_empty() {
            return Err(Error::bad_input("the prompt is empty"));
        }
        if text.trim().is_empty() {
            return Err(Error::bad_input(format!("the target {target:?} is blank")));
        }
        let behind = |word: &str, its_ids: &[u32]| -> Result<Option<Vec<u32>>> {
            let all = self.encode(&format!("{word}{text}"))?;
            Ok(all.strip_prefix(its_ids).filter(|ids| !ids.is_empty()).map(<[u32]>::to_vec))
        };
        if let Some(target) = behind(prompt, &before)? {
            return Ok(Followed { prompt: before, target });
        }
        match behind("a", &self.encode("a")?)? {
            Some(target) => Ok(Followed { prompt: before, target }),
            None => Err(Error::bad_input(format!(
                "no tokens of {:?} are those of the target alone",
                prompt.to_owned() + &text
            ))),
        }
    }

    /// Which of a text's tokens its first `end` bytes end with: an index into [`Self::encode`]'s.
    ///
    /// # Errors
    ///
    /// When no token begins before that.
    pub fn token_before(&self, text: &str, end: usize) -> Result<usize> {
        let encoding = guarded(|| self.inner.encode(text, false).map_err(|error| cannot_tokenize(text, &error)))?;
        let last = encoding.get_offsets().iter().rposition(|(from, _)| *from < end);
        let last = last.ok_or_else(|| Error::bad_input(format!("{:?} has no tokens in {text:?}", &text[..end])))?;
        Ok(self.begin.len() + last)
    }

    /// Which of a text's tokens hold its bytes `range`, whole or in part: indices into [`Self::encode`]'s.
    ///
    /// # Errors
    ///
    /// When none does.
    pub fn tokens_of(&self, text: &str, range: Range<usize>) -> Result<Range<usize>> {
        let encoding = guarded(|| self.inner.encode(text, false).map_err(|error| cannot_tokenize(text, &error)))?;
        let offsets = encoding.get_offsets();
        let first = offsets.iter().position(|(_, to)| *to > range.start);
        let last = offsets.iter().rposition(|(from, _)| *from < range.end);
        match first.zip(last) {
            Some((first, last)) if first <= last => Ok(self.begin.len() + first..self.begin.len() + last + 1),
            _ => Err(Error::bad_input(format!("{:?} has no tokens in {text:?}", &text[range]))),
        }
    }

    /// One token's text, or its name where it is special.
    pub fn token(&self, id: u32) -> Result<String> {
        let text = self.decode(&[id])?;
        Ok(if text.is_empty() { self.inner.id_to_token(id).unwrap_or_default() } else { text })
    }

    /// The text of `ids`, without special tokens.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        let refuse = |error| Error::bad_input(format!("cannot decode tokens: {error}"));
        guarded(|| self.inner.decode(ids, true).map_err(refuse))
    }

    /// The token that ends a text, by its usual names.
    pub(crate) fn end_of_text(&self) -> Option<u32> {
        ["<|endoftext|>", "</s>", "<|end_of_text|>"].iter().find_map(|name| self.inner.token_to_id(name))
    }

    fn ids(&self, text: &str, special: bool) -> Result<Vec<u32>> {
        guarded(|| {
            let encoding = self.inner.encode_fast(text, special).map_err(|error| cannot_tokenize(text, &error))?;
            Ok(encoding.get_ids().to_vec())
        })
    }
}

/// Some files are read and make the reader panic later; where a panic can be caught it is a refusal by the file's name.
fn guarded<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let words = panic.downcast_ref::<String>().cloned();
        let words = words.or_else(|| panic.downcast_ref::<&str>().map(|words| (*words).to_owned()));
        Err(Error::bad_file(FILE, format!("cannot be worked with: {}", words.unwrap_or_default())))
    })
}

fn cannot_tokenize(text: &str, error: &tokenizers::Error) -> Error {
    Error::bad_input(format!("cannot tokenize {text:?}: {error}"))
}

/// `target` with exactly one space in front.
fn spaced(target: &str) -> String {
    format!(" {}", target.trim_start())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// A vocabulary in the manner of LLaMA's: a space is written `▁`, one stands before every text, and what has no
    /// piece falls apart into bytes.
    fn sentence_pieces(change: impl FnOnce(&mut Value)) -> Tokenizer {
        let pieces = ["<unk>", "<s>", "</s>", "▁", "▁▁", "▁a", "▁in", "▁Z", "ü", "a", "n", "i", "1", "9", "Z"];
        let mut vocab: serde_json::Map<String, Value> =
            pieces.iter().enumerate().map(|(id, piece)| ((*piece).to_owned(), id.into())).collect();
        for byte in 0..=255 {
            let id = vocab.len();
            vocab.insert(format!("<0x{byte:02X}>"), id.into());
        }
        let mut file = json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": [],
            "normalizer": {"type": "Sequence", "normalizers": [
                {"type": "Prepend", "prepend": "▁"},
                {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
            ]},
            "pre_tokenizer": null,
            "post_processor": {
                "type": "TemplateProcessing",
                "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
                "special_tokens": {
                    "<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]},
                    "</s>": {"id": "</s>", "ids": [2], "tokens": ["</s>"]},
                },
            },
            "decoder": null,
            "model": {
                "type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
                "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "vocab": vocab,
                "merges": ["▁ ▁", "▁ a", "i n", "▁ in", "▁ Z"],
            },
        });
        // "▁ in" needs the piece it joins.
        let in_piece = file["model"]["vocab"].as_object().map_or(0, serde_json::Map::len);
        file["model"]["vocab"]["in"] = in_piece.into();
        change(&mut file);
        Tokenizer::from_json(file.to_string().as_bytes()).expect("a tokenizer")
    }

    #[track_caller]
    fn check(tokenizer: &Tokenizer, prompt: &str, target: &str, expected: &[&str]) {
        let Followed { prompt: ids, target } = tokenizer.followed(prompt, target).expect("tokens");
        let pieces: Vec<String> = target.iter().map(|id| tokenizer.inner.id_to_token(*id).expect("known")).collect();
        assert_eq!(pieces, expected, "{prompt:?}");
        assert_eq!(ids, tokenizer.encode(prompt).expect("tokens"));
    }

    #[test]
    fn a_target_s_tokens_are_those_that_stand_behind_the_prompt() {
        let tokenizer = sentence_pieces(|_| {});
        check(&tokenizer, "a", "Zü", &["▁Z", "ü"]);
        check(&tokenizer, "a", " Zü", &["▁Z", "ü"]);
        check(&tokenizer, "a in", "19", &["▁", "1", "9"]);
        check(&tokenizer, "a", "生", &["▁", "<0xE7>", "<0x94>", "<0x9F>"]);
        // The prompt's last space and the answer's are one piece, which cannot be said after the prompt.
        check(&tokenizer, "a ", "Z", &["▁Z"]);
    }

    #[test]
    fn what_the_reader_would_panic_on_is_refused() {
        let compiled = json!({"type": "Precompiled", "precompiled_charsmap": "AAAA"});
        let within = json!({"type": "Sequence", "normalizers": [{"type": "NFC"}, compiled]});
        let texts = [
            (json!({"normalizer": compiled}).to_string(), "Precompiled"),
            (json!({"normalizer": within}).to_string(), "Precompiled"),
            (json!({"model": {"dropout": 0.5}}).to_string(), "dropout 0.5"),
            (r#"{"decoder": {"type": "Fuse", }"#.to_owned(), "line 1"),
            (format!(r#"{{"decoder": {}1{}}}"#, "[".repeat(200), "]".repeat(200)), "recursion limit"),
        ];
        for (text, part) in texts {
            let refusal = Tokenizer::from_json(text.as_bytes()).map(drop).expect_err("refused").to_string();
            assert!(refusal.contains("tokenizer.json") && refusal.contains(part), "{refusal}");
        }
    }

    #[test]
    fn nothing_is_asked_of_a_blank_target_or_prompt() {
        let tokenizer = sentence_pieces(|_| {});
        let message = |prompt, target| tokenizer.followed(prompt, target).expect_err("refused").to_string();
        assert!(message("a", "  ").contains("the target \"  \" is blank"));
        let bare = sentence_pieces(|file| file["post_processor"] = Value::Null);
        assert!(bare.followed("", "a").is_err());
    }

    #[test]
    fn how_a_file_cuts_pads_and_ends_texts_is_left_out_of_account() {
        let plain = sentence_pieces(|_| {});
        let cutting = sentence_pieces(|file| {
            file["truncation"] =
                json!({"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0});
            file["padding"] = json!({
                "strategy": {"Fixed": 32}, "direction": "Left", "pad_to_multiple_of": null, "pad_id": 0,
                "pad_type_id": 0, "pad_token": "<unk>",
            });
            let end = json!({"SpecialToken": {"id": "</s>", "type_id": 0}});
            file["post_processor"]["single"].as_array_mut().expect("a list").push(end);
        });
        let text = "a in Zü 19";
        assert_eq!(cutting.encode(text).unwrap(), plain.encode(text).unwrap());
        assert_eq!(plain.encode(text).unwrap()[0], 1);
        assert_eq!(plain.begin(), [1]);
    }

    #[test]
    fn a_subject_ends_with_the_token_that_holds_its_last_letter() {
        let tokenizer = sentence_pieces(|_| {});
        // <s> ▁a ▁in ▁Z ü
        let text = "a in Zü";
        for (end, token) in [(1, 1), (4, 2), (6, 3), (8, 4)] {
            assert_eq!(tokenizer.token_before(text, end).unwrap(), token, "{:?}", &text[..end]);
        }
    }

    #[test]
    fn a_subject_s_tokens_are_all_that_hold_a_letter_of_it() {
        let tokenizer = sentence_pieces(|_| {});
        // <s> ▁a ▁in ▁Z ü, and a letter without a piece as three bytes.
        let text = "a in Zü";
        for (range, tokens) in [(0..1, 1..2), (2..4, 2..3), (5..8, 3..5), (6..8, 4..5), (0..8, 1..5)] {
            assert_eq!(tokenizer.tokens_of(text, range.clone()).unwrap(), tokens, "{:?}", &text[range]);
        }
        assert_eq!(tokenizer.tokens_of("a 生", 2..5).unwrap(), 3..6);
        assert!(tokenizer.tokens_of("", 0..0).is_err());
        let ids = tokenizer.encode("a in").unwrap();
        let tokens: Vec<String> = ids.iter().map(|id| tokenizer.token(*id).unwrap()).collect();
        assert_eq!(tokens, ["<s>", "▁a", "▁in"]);
    }

    #[test]
    fn an_embedding_needs_a_row_for_the_largest_id() {
        let gap = sentence_pieces(|file| file["model"]["vocab"]["Z"] = 900.into());
        assert_eq!(gap.vocab_size(), 901);
    }
}
