//! From `rectify edit`'s flags to an [`EditSpec`].

use std::{
    ops::Range,
    path::{Path, PathBuf},
};

use rectify_protocol::{
    ArchitectureKind, Contexts, EditSpec, EditorSpec, Failure, Guards, KeyChoice, Regularizer, unknown,
};
use serde_json::{Value, json};

use crate::{hparams, io};

/// The flags that say how to edit.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Settings {
    #[arg(long, value_parser = method, help = format!("The editor: {}", EditorSpec::METHODS.join(", ")))]
    method: String,
    /// The layers to edit: 5, or 4,5,6 where the method spreads an edit. Default: the model's
    #[arg(long, value_delimiter = ',')]
    layer: Option<Vec<usize>>,
    /// A JSON list of templates, each with one {}, or the seed to sample them with
    #[arg(long, value_name = "FILE.json|SEED")]
    contexts: Option<String>,
    /// Second moments of keys: a folder of DIR/moment.LAYER.safetensors, as `rectify stats` writes them; `identity` as
    /// a rough substitute; `none`. Default: those beside the model, where the method needs them
    #[arg(long, value_name = "DIR|identity|none")]
    covariance: Option<PathBuf>,
    /// MEND's trained hypernetwork, as `rectify mend train` writes it. Default: the one beside the model
    #[arg(long, value_name = "FILE")]
    pub(super) hypernetwork: Option<PathBuf>,
    /// Which key ROME's update is made for: mixed (as published), mean (r-ROME) or prompt (p-ROME)
    #[arg(long, value_parser = key)]
    key: Option<KeyChoice>,
    /// Hyper-parameters from elsewhere: EasyEdit's YAML, ROME's or MEMIT's JSON, or our TOML. Keys that are not used are
    /// listed; --set and other flags win
    #[arg(long, value_name = "FILE")]
    hparams: Option<PathBuf>,
    /// Any hyper-parameter by its name in the literature: v_lr, v_num_grad_steps, kl_factor, …
    #[arg(long, value_name = "NAME=VALUE", value_parser = assignment)]
    set: Vec<(String, String)>,
    /// What is kept of the update: none (all of it), rect, random, pca, low_rank or prune
    #[arg(long, default_value = "none", value_parser = regularizer)]
    regularizer: String,
    /// The share of entries (or components) to keep, above 0 and at most 1; 40% is 0.4. Default: 0.4
    #[arg(long, value_parser = keep, allow_negative_numbers = true)]
    keep: Option<f64>,
    /// Seeds the sampled contexts and the random regularizer
    #[arg(long)]
    seed: Option<u64>,
    /// Go on even if an update is as large as its matrix or the model forgets how to speak
    #[arg(long)]
    allow_harm: bool,
}

/// Where second moments come from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Covariance<'a> {
    /// What lies beside the model.
    Bundled,
    /// A folder of files.
    Folder(&'a Path),
    /// The identity stands in.
    Identity,
    /// None are used.
    None,
}

impl Settings {
    /// Where second moments come from.
    pub(super) fn covariance(&self) -> Covariance<'_> {
        match self.covariance.as_deref() {
            None => Covariance::Bundled,
            Some(path) if path == Path::new("none") => Covariance::None,
            Some(path) if path == Path::new("identity") => Covariance::Identity,
            Some(folder) => Covariance::Folder(folder),
        }
    }

    /// Says what is wrong with the flags before any model is read, and what of a file of settings is not used.
    pub(super) fn check(&self) -> Result<(), Failure> {
        if let (Some(path), [preset]) = (&self.hparams, presets(&self.method)) {
            let unused = hparams::from_elsewhere(path, &preset)?.1;
            if !unused.is_empty() {
                io::warn(&format!("{} of {} is not used here", unused.join(", "), path.display()));
            }
        }
        self.spec(&presets(&self.method)).map(drop)
    }

    /// The settings as one value, checked; what no flag names is as in the model's own settings.
    pub(super) fn spec(&self, presets: &[EditorSpec]) -> Result<EditSpec, Failure> {
        let preset = presets.iter().find(|preset| preset.method() == self.method);
        let mut editor = preset.cloned().expect("every model has settings for every method");
        if let Some(path) = &self.hparams {
            editor = hparams::from_elsewhere(path, &editor)?.0;
        }
        for (name, text) in &self.set {
            editor = assign(&editor, name, text)?;
        }
        if let Some(layers) = &self.layer {
            if self.set.iter().any(|(name, _)| name == "layers") {
                return Err(Failure::bad_input("--layer and --set layers=… both name the layers"));
            }
            editor = editor.with("layers", json!(layers))?;
        }
        if let Some(key) = self.key {
            editor = editor.with("key", json!(key))?;
        }
        let mut seed = self.seed;
        if let Some(contexts) = &self.contexts {
            match contexts.parse() {
                Ok(number) if seed.is_some_and(|seed| seed != number) => {
                    return Err(Failure::bad_input("--contexts and --seed name different seeds"));
                }
                Ok(number) => seed = Some(number),
                Err(_) => {
                    let given = Contexts::Given(templates(Path::new(contexts))?);
                    editor = editor.with("contexts", json!(given))?;
                }
            }
        }
        if let EditorSpec::Rome(rome) = &mut editor {
            match self.covariance() {
                Covariance::Folder(_) | Covariance::Identity => rome.mom2_adjustment = true,
                Covariance::None => rome.mom2_adjustment = false,
                Covariance::Bundled => {}
            }
        } else if self.covariance() == Covariance::None && editor.needs_moments() {
            let method = &self.method;
            return Err(Failure::bad_input(format!("{method} needs second moments: --covariance cannot be none")));
        }
        let spec = EditSpec {
            editor,
            regularizer: Regularizer::named(&self.regularizer, self.keep)?,
            seed: seed.unwrap_or(0),
            guards: if self.allow_harm { Guards::NONE } else { Guards::default() },
        };
        spec.validate()?;
        Ok(spec)
    }
}

/// The method's published settings, as a stand-in until a model brings its own.
fn presets(method: &str) -> [EditorSpec; 1] {
    [EditorSpec::published(method, ArchitectureKind::Gpt2).expect("`method` lets no other through")]
}

/// Changes one hyper-parameter. The settings' own (de)serialisation knows the names and types.
fn assign(editor: &EditorSpec, name: &str, text: &str) -> Result<EditorSpec, Failure> {
    // A number or a quoted text, a list written without its brackets, or a text written without its quotes.
    let readings = [text.to_owned(), format!("[{text}]")];
    let readings = readings.iter().filter_map(|reading| serde_json::from_str(reading).ok());
    let mut problem = None;
    for value in readings.chain([Value::from(text)]) {
        match editor.with(name, value) {
            Ok(changed) => return Ok(changed),
            Err(failure) => problem = problem.or(Some(failure)),
        }
    }
    Err(problem.expect("a text was tried at least"))
}

fn templates(path: &Path) -> Result<Vec<String>, Failure> {
    let text = io::read_text(path)?;
    serde_json::from_str(&text)
        .map_err(|error| Failure::bad_input(format!("{} is not a JSON list of templates: {error}", path.display())))
}

fn one_of(what: &str, text: &str, known: &[&str]) -> Result<String, String> {
    known.iter().find(|name| **name == text).map(|name| (*name).to_owned()).ok_or_else(|| unknown(what, text, known))
}

fn method(text: &str) -> Result<String, String> {
    one_of("method", text, EditorSpec::METHODS)
}

fn regularizer(text: &str) -> Result<String, String> {
    one_of("regularizer", text, Regularizer::NAMES)
}

fn key(text: &str) -> Result<KeyChoice, String> {
    let name = one_of("key", text, &["mixed", "mean", "prompt"])?;
    serde_json::from_value(Value::from(name)).map_err(|error| error.to_string())
}

/// `0.4` or `40%`.
fn keep(text: &str) -> Result<f64, String> {
    let (number, unit) = text.strip_suffix('%').map_or((text, 1.0), |number| (number, 100.0));
    match number.parse::<f64>() {
        Ok(number) if number > 0.0 && number <= unit => Ok(number / unit),
        _ => Err("it is a share above 0 and at most 1, such as 0.4 or 40%".into()),
    }
}

fn assignment(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

/// `0..3`, half open, or a single number.
pub(super) fn index(text: &str) -> Result<Range<usize>, String> {
    let bad = || format!("{text:?} is neither a number nor a half-open range such as 0..3");
    let number = |text: &str| text.parse::<usize>().map_err(|_| bad());
    match text.split_once("..") {
        None => number(text).and_then(|start| Ok(start..start.checked_add(1).ok_or_else(bad)?)),
        Some((start, end)) => {
            let range = number(start)?..number(end)?;
            if range.is_empty() { Err(format!("{text} holds nothing; the end is not part of it")) } else { Ok(range) }
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use rectify_protocol::{FactToken, RomeSpec};

    use super::*;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        settings: Settings,
    }

    fn spec(flags: &str) -> Result<EditSpec, Failure> {
        let words = ["edit", "--method", "rome"].into_iter().chain(flags.split_whitespace());
        {
            let settings = Flags::try_parse_from(words).unwrap().settings;
            settings.spec(&presets(&settings.method))
        }
    }

    #[track_caller]
    fn check(flags: &str, change: impl FnOnce(&mut EditSpec, &mut RomeSpec)) {
        let mut rome = RomeSpec::default();
        let editor = EditorSpec::Rome(RomeSpec::default());
        let mut expected = EditSpec::new(editor);
        change(&mut expected, &mut rome);
        expected.editor = EditorSpec::Rome(rome);
        assert_eq!(spec(flags).unwrap(), expected, "{flags}");
    }

    #[track_caller]
    fn check_refused(flags: &str, part: &str) {
        let failure = spec(flags).unwrap_err();
        assert!(failure.message.contains(part), "{failure}\nlacks {part:?}");
    }

    #[test]
    fn flags_become_settings() {
        check("", |_, _| {});
        check("--layer 5 --key mean --seed 3", |spec, rome| {
            spec.seed = 3;
            rome.layers = Some(vec![5]);
            rome.key = KeyChoice::Mean;
        });
        check("--contexts 7", |spec, _| spec.seed = 7);
        check("--regularizer rect", |spec, _| spec.regularizer = Regularizer::Rect { keep: 0.4 });
        check("--regularizer random --keep 20%", |spec, _| spec.regularizer = Regularizer::Random { keep: 0.2 });
        check("--covariance somewhere", |_, rome| rome.mom2_adjustment = true);
        check("--covariance identity", |_, rome| rome.mom2_adjustment = true);
        check("--set mom2_adjustment=true --covariance none", |_, _| {});
        check("--allow-harm", |spec, _| spec.guards = Guards::NONE);
    }

    #[test]
    fn any_hyper_parameter_can_be_set_by_its_name() {
        check("--set v_lr=0.1 --set v_num_grad_steps=5", |_, rome| {
            rome.value.v_lr = 0.1;
            rome.value.v_num_grad_steps = 5;
        });
        check("--set layers=4", |_, rome| rome.layers = Some(vec![4]));
        check("--set layers=[4]", |_, rome| rome.layers = Some(vec![4]));
        check("--set fact_token=last --set key=prompt", |_, rome| {
            rome.fact_token = FactToken::Last;
            rome.key = KeyChoice::Prompt;
        });
        check(r#"--set contexts={"given":["{}"]}"#, |_, rome| rome.value.contexts = Contexts::Given(vec!["{}".into()]));
    }

    #[test]
    fn what_cannot_be_set_is_named() {
        check_refused("--set v_lrr=0.1", "unknown hyper-parameter of rome \"v_lrr\"; did you mean \"v_lr\"?");
        check_refused("--set method=memit", "unknown hyper-parameter of rome \"method\"");
        check_refused("--set v_lr=fast", "v_lr cannot be \"fast\"");
        check_refused("--set v_lr=NaN", "v_lr cannot be \"NaN\"");
        check_refused("--set v_lr=-1", "v_lr is -1");
        check_refused("--set v_num_grad_steps=2.5", "v_num_grad_steps cannot be 2.5");
        check_refused("--set v_num_grad_steps=0", "v_num_grad_steps is 0");
        check_refused("--set layers=4,5", "exactly one layer");
        check_refused("--set layers=4 --layer 5", "both name the layers");
        check_refused("--contexts 7 --seed 8", "different seeds");
        check_refused("--contexts nowhere.json", "cannot read nowhere.json");
        check_refused("--keep 0.4", "keep has no meaning");
    }

    #[test]
    fn an_index_is_a_number_or_a_half_open_range() {
        assert_eq!(index("2"), Ok(2..3));
        assert_eq!(index("0..3"), Ok(0..3));
        assert!(index("3..3").is_err());
        assert!(index("..3").is_err());
        assert!(index("-1").is_err());
        assert!(index("18446744073709551615").is_err());
    }
}
