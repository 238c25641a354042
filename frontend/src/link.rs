//! Links: what a visitor has set up, as the end of an address that shows the same to another person.
//!
//! `#edit?v=1&model=demo-gpt2&facts=[…]&method=rome&settings.v_lr=0.1&regularizer=rect&keep=0.4&seed=0`. It holds the
//! form and no weights, and opening it fills the form and edits nothing. Whatever is not understood is refused by name,
//! so that nobody takes another set-up for the one that was shared. Embedded demonstrations are told theirs in the same
//! words ([`crate::demo`]).

mod fields;

pub use fields::{Fields, LONGEST};
use rectify_protocol::{ArchitectureKind, EditorSpec, Fact, Failure, Method, Regularizer, unknown};
use serde_json::Value;

use crate::methods;

/// What a visitor has set up. What is absent is as on a fresh page.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Setup {
    /// An id of the catalog.
    pub model: Option<String>,
    /// The fact in the form, complete or not.
    pub fact: Option<Fact>,
    /// One of [`EditorSpec::METHODS`].
    pub method: Option<&'static str>,
    /// Settings of the method that are not the model's own: names and values.
    pub settings: Vec<(String, Value)>,
    /// What is kept of the change.
    pub regularizer: Option<Regularizer>,
    /// Seeds whatever is sampled.
    pub seed: Option<u64>,
}

/// Every key of a link. The last stands for `settings.v_lr` and its like.
const KEYS: &[&str] = &["model", "facts", "method", "regularizer", "keep", "base", "seed", SETTINGS];
const SETTINGS: &str = "settings.";

impl Setup {
    /// Reads the part of an address after its `?`.
    ///
    /// # Errors
    ///
    /// When anything in it is unknown, malformed, impossible or too long.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        let mut fields = Fields::parse(text)?;
        let setup = Self::take(&mut fields)?;
        fields.done(KEYS)?;
        Ok(setup)
    }

    /// Takes its own pairs from those of an address.
    ///
    /// # Errors
    ///
    /// When one of them is malformed or impossible.
    pub fn take(fields: &mut Fields) -> Result<Self, Failure> {
        let method = fields.take("method").map(|name| method(&name)).transpose()?;
        let settings = fields.take_all(SETTINGS);
        let settings = settings.into_iter().map(|(name, text)| setting(method, name, &text));
        Ok(Self {
            model: fields.take("model"),
            fact: fields.take("facts").map(|text| fact(&text)).transpose()?,
            method,
            settings: settings.collect::<Result<_, _>>()?,
            regularizer: regularizer(fields)?,
            seed: fields.take("seed").map(|text| seed(&text)).transpose()?,
        })
    }

    /// What [`Self::parse`] reads.
    ///
    /// # Errors
    ///
    /// When it is longer than a link may be.
    pub fn write(&self) -> Result<String, Failure> {
        let mut pairs = Vec::new();
        let mut put = |key: &str, value: String| pairs.push((key.to_owned(), value));
        if let Some(model) = &self.model {
            put("model", model.clone());
        }
        if let Some(fact) = &self.fact {
            put("facts", serde_json::to_string(&[fact]).expect("a fact is plain data, which has a JSON form"));
        }
        if let Some(method) = self.method {
            put("method", method.to_owned());
        }
        for (name, value) in &self.settings {
            put(&format!("{SETTINGS}{name}"), value.to_string());
        }
        if let Some(regularizer) = self.regularizer {
            put("regularizer", regularizer.name().to_owned());
            match regularizer {
                Regularizer::Prune { base } => put("base", base.to_string()),
                other => other.keep().into_iter().for_each(|keep| put("keep", keep.to_string())),
            }
        }
        if let Some(seed) = self.seed {
            put("seed", seed.to_string());
        }
        let text = fields::write(&pairs);
        match text.len() {
            length if length <= LONGEST => Ok(text),
            length => Err(Failure::bad_input(format!(
                "this is too much for a link: it would have {length} bytes, and there may be {LONGEST}"
            ))),
        }
    }
}

fn method(name: &str) -> Result<&'static str, Failure> {
    let found = Method::named(name).map(|method| method.name);
    found.ok_or_else(|| Failure::bad_input(unknown("method", name, EditorSpec::METHODS)))
}

/// A list of one fact, as in a file of facts.
fn fact(text: &str) -> Result<Fact, Failure> {
    let mut facts: Vec<Fact> = serde_json::from_str(text)
        .map_err(|error| Failure::bad_field("facts", format_args!("is no list of facts: {error}")))?;
    if facts.len() != 1 {
        return Err(Failure::bad_field(
            "facts",
            format_args!("has {} entries; the form has place for one", facts.len()),
        ));
    }
    let fact = facts.remove(0);
    let homeless = [
        ("consequences", fact.consequences.is_empty()),
        ("generation_prompts", fact.generation_prompts.is_empty()),
        ("references", fact.references.is_empty()),
    ];
    match homeless.iter().find(|(_, empty)| !empty) {
        Some((name, _)) => {
            Err(Failure::bad_field("facts", format_args!("has {name}, for which the form has no place")))
        }
        None => Ok(fact),
    }
}

/// A setting that the method has, with a value it can have. Whether the model has such a layer is known only later.
fn setting(method: Option<&'static str>, name: String, text: &str) -> Result<(String, Value), Failure> {
    let Some(method) = method else {
        return Err(Failure::bad_field(&format!("{SETTINGS}{name}"), "is there without a method to be a setting of"));
    };
    let number = text.parse::<f64>().ok().filter(|number| number.is_finite());
    let value = match (text.parse::<u64>(), number) {
        (Ok(whole), _) => Value::from(whole),
        // Exactly, where a reader of JSON may be off by the last digit.
        (_, Some(number)) => Value::from(number),
        _ => serde_json::from_str(text).map_err(|_| {
            Failure::bad_field(&format!("{SETTINGS}{name}"), format_args!("is {text:?}, no value in JSON"))
        })?,
    };
    // Names and kinds are every model's; whether the numbers go together, the model's own settings say.
    let editor = EditorSpec::published(method, ArchitectureKind::Gpt2).expect("a method that is listed is published");
    editor.with(&name, value.clone())?;
    Ok((name, value))
}

fn regularizer(fields: &mut Fields) -> Result<Option<Regularizer>, Failure> {
    let (name, keep, base) = (fields.take("regularizer"), fields.take("keep"), fields.take("base"));
    let number = |key: &str, text: &str| {
        text.parse::<f64>().map_err(|_| Failure::bad_field(key, format_args!("is {text:?}, no number")))
    };
    let Some(name) = name else {
        return match (keep, base) {
            (None, None) => Ok(None),
            (Some(_), _) => Err(Failure::bad_field("keep", "is there without a regularizer to keep it")),
            (_, Some(_)) => Err(Failure::bad_field("base", "is there without the regularizer prune")),
        };
    };
    let keep = keep.map(|text| number("keep", &text)).transpose()?;
    let mut regularizer = Regularizer::named(&name, keep)?;
    match (&mut regularizer, base) {
        (Regularizer::Prune { base }, Some(text)) => *base = number("base", &text)?,
        (_, Some(_)) => return Err(Failure::bad_field("base", format_args!("has no meaning for {name}"))),
        (_, None) => {}
    }
    regularizer.validate()?;
    let percent = methods::kept_percent(regularizer);
    if regularizer.keep().is_some_and(|keep| percent < 1 || keep != f64::from(percent) / 100.0) {
        let problem = format_args!("is {}; the slider has whole percents, from 0.01 to 1", keep.unwrap_or_default());
        return Err(Failure::bad_field("keep", problem));
    }
    Ok(Some(regularizer))
}

fn seed(text: &str) -> Result<u64, Failure> {
    text.parse().map_err(|_| Failure::bad_field("seed", format_args!("is {text:?}, no whole number")))
}

#[cfg(test)]
mod tests {
    use rectify_protocol::Neighbor;
    use serde_json::json;

    use super::*;

    /// Pseudorandom numbers, the same in every run.
    struct Dice(u64);

    impl Dice {
        fn below(&mut self, n: usize) -> usize {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) as usize % n
        }

        fn text(&mut self) -> String {
            const PIECES: &[&str] = &[
                "",
                " ",
                "a",
                "Ada",
                "%",
                "%20",
                "+",
                "&",
                "=",
                "#",
                "?",
                "\"",
                "\\",
                "'",
                "\n",
                "\r\n",
                "\t",
                "\0",
                "🙂",
                "👩‍👧",
                "é",
                "e\u{301}",
                "漢字",
                "\u{202e}",
                "\u{feff}",
                "<script>",
                "{}",
                "[",
                "]",
                "null",
                "\u{10ffff}",
            ];
            let long = if self.below(50) == 0 { 200 } else { 8 };
            (0..self.below(long)).map(|_| PIECES[self.below(PIECES.len())]).collect()
        }

        fn texts(&mut self) -> Vec<String> {
            (0..self.below(4)).map(|_| self.text()).collect()
        }

        fn fact(&mut self) -> Fact {
            Fact {
                subject: self.text(),
                prompt: self.text(),
                target_new: self.text(),
                target_true: (self.below(2) == 0).then(|| self.text()),
                paraphrases: self.texts(),
                neighbors: (0..self.below(3))
                    .map(|_| Neighbor { prompt: self.text(), target: (self.below(2) == 0).then(|| self.text()) })
                    .collect(),
                ..Fact::default()
            }
        }

        /// Any number that the setting can be.
        fn number(&mut self) -> f64 {
            f64::from_bits((self.below(1 << 30) as u64) << 22 | 0x3ff0_0000_0000_0000) / (1 + self.below(1000)) as f64
        }

        fn setup(&mut self) -> Setup {
            let method = EditorSpec::METHODS[self.below(EditorSpec::METHODS.len())];
            let settings = match method {
                "rome" => {
                    vec![("v_lr", json!(self.number())), ("layers", json!([self.below(5)])), ("key", json!("mean"))]
                }
                "memit" => vec![("contexts", json!({"given": ["{}", "🙂 & {}"]})), ("history", json!(true))],
                "ft" => vec![("norm_constraint", Value::Null), ("num_steps", json!(1 + self.below(50)))],
                _ => vec![],
            };
            let keep = (1 + self.below(100)) as f64 / 100.0;
            let name = Regularizer::NAMES[self.below(Regularizer::NAMES.len())];
            let mut regularizer =
                Regularizer::named(name, Some(keep)).or_else(|_| Regularizer::named(name, None)).unwrap();
            if let Regularizer::Prune { base } = &mut regularizer {
                *base = 1.5 + self.number();
            }
            Setup {
                model: (self.below(3) > 0).then(|| self.text()),
                fact: (self.below(4) > 0).then(|| self.fact()),
                method: Some(method),
                settings: settings.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
                regularizer: (self.below(4) > 0).then_some(regularizer),
                seed: (self.below(2) == 0).then_some(self.0),
            }
        }
    }

    #[test]
    fn whatever_is_written_into_a_link_is_read_from_it() {
        let mut dice = Dice(2024);
        let mut read = 0;
        for _ in 0..3000 {
            let setup = dice.setup();
            // A fact of many long texts may be too much; then it is refused and never cut.
            match setup.write() {
                Ok(text) => {
                    assert!(text.bytes().all(|byte| byte.is_ascii_graphic()), "{text}");
                    assert_eq!(Setup::parse(&text).unwrap_or_else(|failure| panic!("{failure}: {text}")), setup);
                    read += 1;
                }
                Err(failure) => assert!(failure.message.contains("too much for a link"), "{failure}"),
            }
        }
        assert!(read > 2500, "{read} of 3000 fit");
    }

    #[test]
    fn an_address_that_was_cut_or_changed_never_panics() {
        let mut dice = Dice(7);
        for _ in 0..500 {
            let Ok(text) = dice.setup().write() else { continue };
            let cut = &text[..dice.below(text.len())];
            let _ = Setup::parse(cut);
            let mut bytes = text.clone().into_bytes();
            let at = dice.below(bytes.len());
            bytes[at] = b"%&=+\"[0a"[dice.below(8)];
            let _ = Setup::parse(&String::from_utf8(bytes).expect("ASCII"));
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let fact = Fact { prompt: "é".repeat(LONGEST), ..Fact::default() };
        let failure = Setup { fact: Some(fact), ..Setup::default() }.write().expect_err("too long");
        assert!(failure.message.contains("too much for a link"), "{failure}");
    }

    #[track_caller]
    fn check_refused(text: &str, complaint: &str) {
        let failure = Setup::parse(&format!("v=1&{text}")).expect_err("refused");
        assert!(failure.message.contains(complaint), "{failure}");
    }

    #[test]
    fn whatever_is_not_understood_is_named() {
        check_refused("colour=red", "unknown key in the address: \"colour\"");
        check_refused("method=roem", "unknown method \"roem\"");
        check_refused("facts=Ada", "facts is no list of facts");
        check_refused("facts=[]", "facts has 0 entries");
        check_refused(
            r#"facts=[{"subject":"a","prompt":"b","target_new":"c","colour":"d"}]"#,
            "unknown field `colour`",
        );
        check_refused(r#"facts=[{"subject":"a","subject":"b"}]"#, "duplicate field `subject`");
        let homeless = r#"facts=[{"subject":"a","prompt":"b","target_new":"c","references":["d"]}]"#;
        check_refused(homeless, "references, for which the form has no place");
        check_refused("settings.v_lr=0.1", "settings.v_lr is there without a method");
        check_refused("method=rome&settings.v_lr=fast", "settings.v_lr is \"fast\"");
        check_refused("method=rome&settings.v_lr=NaN", "settings.v_lr is \"NaN\"");
        check_refused("method=rome&settings.layers=0.5", "layers cannot be 0.5");
        check_refused("method=rome&settings.vlr=1", "unknown hyper-parameter of rome \"vlr\"; did you mean \"v_lr\"?");
        check_refused("method=rome&settings.method=1", "unknown hyper-parameter of rome \"method\"");
        check_refused("regularizer=rekt", "did you mean \"rect\"?");
        check_refused("keep=0.4", "keep is there without a regularizer");
        check_refused("regularizer=rect&keep=40%25", "keep is \"40%\", no number");
        check_refused("regularizer=rect&keep=0", "keep is 0");
        check_refused("regularizer=rect&keep=-1", "keep is -1");
        check_refused("regularizer=rect&keep=NaN", "keep is NaN");
        check_refused("regularizer=rect&keep=1.01", "keep is 1.01");
        check_refused("regularizer=rect&keep=0.405", "keep is 0.405; the slider has whole percents");
        check_refused("regularizer=rect&keep=0.001", "whole percents");
        check_refused("regularizer=none&keep=0.4", "keep has no meaning for none");
        check_refused("regularizer=rect&base=2", "base has no meaning for rect");
        check_refused("regularizer=prune&base=1", "base is 1");
        check_refused("seed=-1", "seed is \"-1\"");
        check_refused("seed=18446744073709551616", "no whole number");
    }
}
