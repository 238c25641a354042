//! The methods of editing and the regularizers in words, and their settings as the fields of a form.
//!
//! Plain functions over [`EditorSpec`]'s JSON form, so that a new setting is a new field without further ado.

use rectify_protocol::{CatalogModel, Contexts, EditorSpec, FileRole, Method, Regularizer};
use serde_json::{Value, json};

/// The method called `name`.
pub fn method(name: &str) -> Method {
    Method::named(name).unwrap_or(Method::ALL[0])
}

/// Regularizers that stand in front, with what their buttons say.
pub const REGULARIZERS: [(&str, &str); 3] = [("none", "all of it"), ("rect", "RECT"), ("random", "random")];
/// Those behind "more".
pub const MORE_REGULARIZERS: [(&str, &str); 3] = [("pca", "PCA"), ("low_rank", "low rank"), ("prune", "PRUNE")];

/// What a regularizer keeps, in one sentence.
pub fn regularizer_words(name: &str) -> &'static str {
    match name {
        "rect" => "RECT keeps the entries that change most relative to the weight they change.",
        "random" => "The same number of entries, drawn at random: shows what RECT's choice is worth.",
        "pca" => "RECT's other control, as published: principal-component scores, written in place of the change.",
        "low_rank" => "The closest low-rank matrix. ROME's change for one fact has rank one, so all of it is kept.",
        "prune" => "Damps what exceeds the matrix's own largest singular value: meant for many edits in a row.",
        _ => "The whole change is applied, as in the published method.",
    }
}

/// `ROME + RECT 40%`.
pub fn edit_words(method_name: &str, regularizer: Regularizer) -> String {
    let method = method(method_name).label;
    let percent = kept_percent(regularizer);
    match regularizer {
        Regularizer::None => method.into(),
        Regularizer::Rect { .. } => format!("{method} + RECT {percent}%"),
        Regularizer::Random { .. } => format!("{method}, random {percent}%"),
        Regularizer::Pca { .. } => format!("{method}, PCA {percent}%"),
        Regularizer::LowRank { .. } => format!("{method}, low rank {percent}%"),
        Regularizer::Prune { .. } => format!("{method} + PRUNE"),
    }
}

/// The share that survives, in percent: 100 where none is chosen.
pub fn kept_percent(regularizer: Regularizer) -> u32 {
    (regularizer.keep().unwrap_or(1.0) * 100.0).round() as u32
}

/// The same regularizer with another share; RECT in place of one that keeps no share.
pub fn keeping(regularizer: Regularizer, percent: u32) -> Regularizer {
    let keep = f64::from(percent) / 100.0;
    match regularizer {
        Regularizer::None | Regularizer::Prune { .. } | Regularizer::Rect { .. } => Regularizer::Rect { keep },
        Regularizer::Random { .. } => Regularizer::Random { keep },
        Regularizer::Pca { .. } => Regularizer::Pca { keep },
        Regularizer::LowRank { .. } => Regularizer::LowRank { keep },
    }
}

/// What `editor` needs and `model` comes without, as a sentence.
pub fn missing(editor: &EditorSpec, model: &CatalogModel) -> Option<String> {
    let has = |role| model.files.iter().any(|file| file.role() == role);
    let label = method(editor.method()).label;
    if matches!(editor, EditorSpec::Mend(_)) && !has(FileRole::Hypernetwork) {
        return Some(format!("{label} needs a network trained for this model, and the model comes without one."));
    }
    let layers = editor.layers().filter(|_| editor.needs_moments()).unwrap_or_default();
    let lacking: Vec<String> =
        layers.iter().filter(|layer| !has(FileRole::Moment(**layer))).map(ToString::to_string).collect();
    match lacking.split_last() {
        None => None,
        Some((last, [])) => Some(format!(
            "{label} with these settings needs statistics of the keys of layer {last}, and this model comes without them."
        )),
        Some((last, others)) => Some(format!(
            "{label} with these settings needs statistics of the keys of layers {} and {last}, and this model comes \
             without them.",
            others.join(", ")
        )),
    }
}

/// `All settings: layer 2, up to 20 steps`.
pub fn summary(editor: &EditorSpec) -> String {
    let layers = editor.layers().map(|layers| match layers {
        [one] => format!("layer {one}"),
        several => format!("layers {}", list(several)),
    });
    let steps = steps(editor).map(|steps| format!("up to {steps} steps"));
    let parts: Vec<String> = [layers, steps].into_iter().flatten().collect();
    match parts.is_empty() {
        true => "All settings".into(),
        false => format!("All settings: {}", parts.join(", ")),
    }
}

/// At most so many evaluations of a loss, for the methods that look for something.
pub fn steps(editor: &EditorSpec) -> Option<usize> {
    match editor {
        EditorSpec::Ft(spec) => Some(spec.num_steps),
        other => other.value().map(|value| value.v_num_grad_steps),
    }
}

/// What the search for the change was, as a heading.
pub fn search_heading(editor: &EditorSpec) -> &'static str {
    match editor {
        EditorSpec::Kn(_) => "How the neurons were found",
        EditorSpec::Ft(_) => "How it was trained",
        editor if editor.value().is_some() => "How the value was found",
        _ => "How the change was made",
    }
}

/// One setting in a form.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    /// Its name in papers, files and on the command line.
    pub name: String,
    /// What it is called here; its name again where nobody has found a word.
    pub label: String,
    /// How it is changed.
    pub kind: Kind,
}

/// How a setting is changed.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// By typing: a number, a list of layers.
    Text,
    /// By a check box.
    Flag,
    /// By choosing one of these.
    Choice(Vec<Choice>),
}

/// One of the values that a setting can have.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// What it is called.
    pub label: &'static str,
    /// What it is.
    pub value: Value,
}

/// What settings are called, in the order they are shown.
const LABELS: &[(&str, &str)] = &[
    ("layers", "Layers"),
    ("fact_token", "Edited token"),
    ("objective", "Objective"),
    ("v_num_grad_steps", "Steps"),
    ("num_steps", "Steps"),
    ("steps", "Steps of the integral"),
    ("batch_size", "Steps at once"),
    ("v_lr", "Learning rate"),
    ("lr", "Learning rate"),
    ("lr_scale", "Size of the change"),
    ("clamp_norm_factor", "Largest change"),
    ("norm_constraint", "Largest change"),
    ("kl_factor", "Preserve essence"),
    ("v_weight_decay", "Weight decay"),
    ("adaptive_threshold", "Share of the best score"),
    ("variant", "How the fact is read"),
    ("neuron", "What a neuron is"),
    ("released", "As in the released code"),
    ("mom2_update_weight", "Weight of other keys"),
    ("emmet_lambda", "Slack"),
    ("nullspace_threshold", "Treated as free below"),
    ("L2", "Ridge"),
    ("key", "Key"),
    ("contexts", "Contexts"),
    ("mom2_adjustment", "Whiten the key with its covariance"),
    ("history", "Hold the keys of earlier edits fixed"),
];

/// Settings that may be left out.
const OPTIONAL: &[&str] = &["norm_constraint"];

/// Every setting of an editor, in the order of [`LABELS`].
pub fn fields(editor: &EditorSpec) -> Vec<Field> {
    let place = |name: &str| LABELS.iter().position(|(known, _)| *known == name);
    let mut settings: Vec<(String, Value)> = settings(editor);
    settings.sort_by_key(|(name, _)| place(name).unwrap_or(LABELS.len()));
    let field = |(name, value): (String, Value)| Field {
        label: place(&name).map_or_else(|| name.clone(), |place| LABELS[place].1.to_owned()),
        kind: match (choices(&name, &value), value) {
            (Some(choices), _) => Kind::Choice(choices),
            (None, Value::Bool(_)) => Kind::Flag,
            _ => Kind::Text,
        },
        name,
    };
    settings.into_iter().map(field).collect()
}

/// The value of one setting; null when there is no such.
pub fn value(editor: &EditorSpec, name: &str) -> Value {
    settings(editor).into_iter().find(|(known, _)| known == name).map_or(Value::Null, |(_, value)| value)
}

/// Names and values of all settings, those of the value's search among them.
fn settings(editor: &EditorSpec) -> Vec<(String, Value)> {
    let mut found = Vec::new();
    if let Ok(Value::Object(own)) = serde_json::to_value(editor) {
        for (name, value) in own {
            match (name.as_str(), value) {
                ("method", _) => {}
                ("value", Value::Object(of_value)) => found.extend(of_value),
                (_, value) => found.push((name, value)),
            }
        }
    }
    found
}

/// What a setting that is no number can be; a value that a model's own file gave it is among them.
fn choices(name: &str, value: &Value) -> Option<Vec<Choice>> {
    let bare = json!(Contexts::Given(vec!["{}".into()]));
    let known = match name {
        "fact_token" => vec![("subject's last", json!("subject_last")), ("prompt's last", json!("last"))],
        "key" => vec![
            ("as published", json!("mixed")),
            ("mean: r-ROME", json!("mean")),
            ("prompt's: p-ROME", json!("prompt")),
        ],
        "objective" => vec![("FT-L: all at once", json!("prompt_last")), ("FT-M: token by token", json!("target_new"))],
        "neuron" => vec![
            ("before the nonlinearity, as released", json!("pre_activation")),
            ("after it, as in the paper", json!("post_activation")),
        ],
        "variant" => vec![("as released", json!("released")), ("token by token", json!("strict"))],
        "contexts" => vec![("sampled texts", json!(Contexts::Sampled)), ("bare prompt", bare)],
        _ => return None,
    };
    let mut choices: Vec<Choice> = known.into_iter().map(|(label, value)| Choice { label, value }).collect();
    if choices.iter().all(|choice| choice.value != *value) {
        choices.push(Choice { label: "this model's own", value: value.clone() });
    }
    Some(choices)
}

/// A setting as it is typed: `0.5`, `3, 4, 5`, or nothing.
pub fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Number(number) => match number.as_u64() {
            Some(whole) => whole.to_string(),
            None => number.as_f64().unwrap_or(f64::NAN).to_string(),
        },
        Value::Array(layers) => layers.iter().map(text).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

/// The settings with what was typed for one of them, or what is wrong with it. A model has `n_layers`.
pub fn typed(editor: &EditorSpec, name: &str, typed: &str, n_layers: usize) -> Result<EditorSpec, String> {
    let typed = typed.trim();
    let before = value(editor, name);
    let value = match (&before, typed) {
        _ if name == "layers" => json!(layers(typed, n_layers)?),
        (_, "") if OPTIONAL.contains(&name) => Value::Null,
        (Value::Number(number), _) if number.is_u64() => json!(typed.parse::<u64>().map_err(|_| "not a whole number")?),
        _ => json!(typed.parse::<f64>().ok().filter(|number| number.is_finite()).ok_or("not a number")?),
    };
    set(editor, name, value)
}

/// The settings with one of them changed, or what is wrong with it.
pub fn set(editor: &EditorSpec, name: &str, value: Value) -> Result<EditorSpec, String> {
    let changed = editor.with(name, value).map_err(|failure| failure.message)?;
    changed.validate().map_err(|failure| failure.message)?;
    Ok(changed)
}

/// What `changed` sets otherwise than `own`: names and values.
pub fn differences(own: &EditorSpec, changed: &EditorSpec) -> Vec<(String, Value)> {
    settings(changed).into_iter().filter(|(name, value)| self::value(own, name) != *value).collect()
}

/// The settings with several of them changed at once, or what is wrong with them. A model has `n_layers`.
pub fn set_all(editor: &EditorSpec, changes: &[(String, Value)], n_layers: usize) -> Result<EditorSpec, String> {
    let mut changed = editor.clone();
    for (name, value) in changes {
        changed = changed.with(name, value.clone()).map_err(|failure| failure.message)?;
    }
    changed.validate().map_err(|failure| failure.message)?;
    check_layers(changed.layers().unwrap_or_default(), n_layers)?;
    Ok(changed)
}

fn check_layers(layers: &[usize], n_layers: usize) -> Result<(), String> {
    match layers.iter().find(|layer| **layer >= n_layers) {
        None => Ok(()),
        Some(_) => Err(format!("the model's layers are 0 to {}", n_layers.saturating_sub(1))),
    }
}

/// A seed as it is typed, or what is wrong with it.
pub fn seed(typed: &str) -> Result<u64, String> {
    typed.trim().parse().map_err(|_| "not a whole number".into())
}

/// PRUNE's base as it is typed, or what is wrong with it.
pub fn base(typed: &str) -> Result<f64, String> {
    let base = typed.trim().parse().map_err(|_| "not a number")?;
    Regularizer::Prune { base }.validate().map(|()| base).map_err(|failure| failure.message)
}

/// `3, 4, 5` or `3-5` to a list.
fn layers(typed: &str, n_layers: usize) -> Result<Vec<usize>, String> {
    let mut layers = Vec::new();
    for part in typed.split([',', ' ']).filter(|part| !part.is_empty()) {
        let number = |text: &str| text.parse::<usize>().map_err(|_| format!("{text:?} is not a layer"));
        let (first, last) = part.split_once('-').map_or((part, part), |ends| ends);
        let (first, last) = (number(first)?, number(last)?);
        check_layers(&[first, last], n_layers)?;
        layers.extend(first..=last);
    }
    Ok(layers)
}

/// `13 to 17`, `2 and 5`.
fn list(numbers: &[usize]) -> String {
    match numbers {
        [first, .., last] if numbers.len() > 2 && numbers.is_sorted_by(|a, b| a + 1 == *b) => {
            format!("{first} to {last}")
        }
        [others @ .., last] if !others.is_empty() => {
            format!("{} and {last}", others.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
        }
        _ => numbers.iter().map(ToString::to_string).collect(),
    }
}

#[cfg(test)]
mod tests {
    use rectify_protocol::{ArchitectureKind, CatalogFile};

    use super::*;

    fn editor(method: &str) -> EditorSpec {
        EditorSpec::published(method, ArchitectureKind::Gpt2).unwrap()
    }

    #[test]
    fn every_regularizer_is_shown_once() {
        let shown = REGULARIZERS.iter().chain(&MORE_REGULARIZERS).map(|(name, _)| *name);
        assert!(shown.eq(Regularizer::NAMES.iter().copied()));
    }

    #[test]
    fn every_setting_has_a_field_with_a_word_of_its_own() {
        for method in EditorSpec::METHODS {
            for field in fields(&editor(method)) {
                assert_ne!(field.label, field.name, "{method}");
            }
        }
    }

    #[test]
    fn settings_that_were_changed_are_changed_in_another_page() {
        let own = set(&editor("kn"), "steps", json!(40)).unwrap();
        assert_eq!(differences(&own, &own), []);
        let changes = [("steps".to_owned(), json!(30)), ("batch_size".to_owned(), json!(15))];
        let changed = set_all(&own, &changes, 6).unwrap();
        assert_eq!(set_all(&own, &differences(&own, &changed), 6).unwrap(), changed);
        assert!(set_all(&own, &changes[..1], 6).unwrap_err().contains("batch_size divides steps"));
        let layer = [("layers".to_owned(), json!([6]))];
        assert_eq!(set_all(&editor("rome"), &layer, 6).unwrap_err(), "the model's layers are 0 to 5");
    }

    #[track_caller]
    fn check_fields(method: &str, expected: &[&str]) {
        let names: Vec<String> = fields(&editor(method)).into_iter().map(|field| field.name).collect();
        assert_eq!(names, expected);
    }

    #[test]
    fn a_form_has_the_settings_of_its_method() {
        check_fields("kn", &["steps", "batch_size", "adaptive_threshold", "variant", "neuron"]);
        check_fields("mend", &["lr_scale", "released"]);
        check_fields("ft", &["layers", "objective", "num_steps", "lr", "norm_constraint"]);
        assert_eq!(fields(&editor("rome")).len(), 10);
    }

    #[test]
    fn a_setting_is_changed_as_its_kind_wants() {
        let kind = |method: &str, name: &str| {
            fields(&editor(method)).into_iter().find(|field| field.name == name).map(|field| field.kind)
        };
        assert_eq!(kind("memit", "history"), Some(Kind::Flag));
        assert_eq!(kind("rome", "v_lr"), Some(Kind::Text));
        assert!(matches!(kind("rome", "key"), Some(Kind::Choice(choices)) if choices.len() == 3));
        let own = set(&editor("rome"), "contexts", json!({"given": ["{}", "So. {}"]})).unwrap();
        let contexts = fields(&own).into_iter().find(|field| field.name == "contexts").unwrap();
        assert!(matches!(contexts.kind, Kind::Choice(choices) if choices[2].label == "this model's own"));
    }

    #[track_caller]
    fn check_typed(method: &str, name: &str, typing: &str, expected: Result<&str, &str>) {
        let result = typed(&editor(method), name, typing, 12);
        match (result, expected) {
            (Ok(editor), Ok(shown)) => assert_eq!(text(&value(&editor, name)), shown),
            (Err(complaint), Err(part)) => assert!(complaint.contains(part), "{complaint:?} lacks {part:?}"),
            (found, expected) => panic!("expected {expected:?}, found {found:?}"),
        }
    }

    #[test]
    fn what_is_typed_becomes_a_setting_or_is_explained() {
        check_typed("rome", "v_lr", " 0.10 ", Ok("0.1"));
        check_typed("rome", "v_lr", "1", Ok("1"));
        check_typed("rome", "v_lr", "0", Err("v_lr is 0"));
        check_typed("rome", "v_lr", "fast", Err("not a number"));
        check_typed("rome", "v_lr", "inf", Err("not a number"));
        check_typed("rome", "v_num_grad_steps", "2.5", Err("not a whole number"));
        check_typed("rome", "v_num_grad_steps", "30", Ok("30"));
        check_typed("memit", "mom2_update_weight", "15000", Ok("15000"));
        check_typed("ft", "norm_constraint", "", Ok(""));
        check_typed("ft", "lr", "", Err("not a number"));
        check_typed("kn", "batch_size", "7", Err("batch_size divides steps"));
    }

    #[test]
    fn what_no_method_owns_is_typed_too() {
        assert_eq!(seed(" 7 "), Ok(7));
        assert!(seed("-1").is_err());
        assert_eq!(base("2.5"), Ok(2.5));
        assert!(base("1").is_err_and(|words| words.contains("above 1")));
        assert!(base("x").is_err());
    }

    #[test]
    fn layers_are_typed_one_by_one_or_from_to() {
        check_typed("memit", "layers", "3-5", Ok("3, 4, 5"));
        check_typed("memit", "layers", "1, 4,6", Ok("1, 4, 6"));
        check_typed("memit", "layers", "12", Err("0 to 11"));
        check_typed("memit", "layers", "", Err("at least one"));
        check_typed("memit", "layers", "x", Err("\"x\" is not a layer"));
        check_typed("rome", "layers", "2 3", Err("exactly one layer"));
    }

    #[track_caller]
    fn check_missing(editor: &EditorSpec, files: &[&str], expected: Option<&str>) {
        let file = |path: &&str| CatalogFile { path: path.to_string(), size: 0, sha256: String::new() };
        let model = CatalogModel {
            id: String::new(),
            name: String::new(),
            folder: String::new(),
            description: String::new(),
            architecture: ArchitectureKind::Gpt2,
            licence: String::new(),
            layers: 12,
            context: 8,
            memory_load: 0,
            memory_edit: 0,
            world: None,
            hparams: Vec::new(),
            files: files.iter().map(file).collect(),
        };
        match (missing(editor, &model), expected) {
            (None, None) => {}
            (Some(words), Some(part)) => assert!(words.contains(part), "{words:?} lacks {part:?}"),
            (found, expected) => panic!("expected {expected:?}, found {found:?}"),
        }
    }

    #[test]
    fn a_model_says_what_it_comes_without() {
        let memit = typed(&editor("memit"), "layers", "1-3", 12).unwrap();
        check_missing(&memit, &["model.safetensors"], Some("layers 1, 2 and 3"));
        check_missing(&memit, &["moment.1.safetensors", "moment.3.safetensors"], Some("layer 2, and"));
        check_missing(&memit, &["moment.1.safetensors", "moment.2.safetensors", "moment.3.safetensors"], None);
        check_missing(&editor("mend"), &[], Some("MEND needs a network"));
        check_missing(&editor("mend"), &["mend.safetensors"], None);
        check_missing(&editor("kn"), &[], None);
        let rome = typed(&editor("rome"), "layers", "2", 12).unwrap();
        check_missing(&rome, &[], None);
        check_missing(&set(&rome, "mom2_adjustment", json!(true)).unwrap(), &[], Some("layer 2"));
    }

    #[test]
    fn settings_are_summed_up() {
        let check = |method: &str, layers: &str, expected: &str| {
            let editor =
                if layers.is_empty() { editor(method) } else { typed(&editor(method), "layers", layers, 48).unwrap() };
            assert_eq!(summary(&editor), expected);
        };
        check("rome", "17", "All settings: layer 17, up to 20 steps");
        check("memit", "13-17", "All settings: layers 13 to 17, up to 20 steps");
        check("memit", "3, 5", "All settings: layers 3 and 5, up to 20 steps");
        check("ft", "0", "All settings: layer 0, up to 25 steps");
        check("kn", "", "All settings");
    }

    #[test]
    fn a_share_goes_on_to_the_same_regularizer() {
        assert_eq!(keeping(Regularizer::None, 20), Regularizer::Rect { keep: 0.2 });
        assert_eq!(keeping(Regularizer::Random { keep: 0.4 }, 100), Regularizer::Random { keep: 1.0 });
        assert_eq!(kept_percent(keeping(Regularizer::LowRank { keep: 0.4 }, 29)), 29);
        assert_eq!(kept_percent(Regularizer::Prune { base: 2.0 }), 100);
        assert_eq!(edit_words("alphaedit", Regularizer::Rect { keep: 0.07 }), "AlphaEdit + RECT 7%");
        assert_eq!(edit_words("kn", Regularizer::None), "KN");
    }
}
