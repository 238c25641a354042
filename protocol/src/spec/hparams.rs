use serde_json::Value;

use super::{EditorSpec, nearest::unknown};
use crate::Failure;

impl EditorSpec {
    /// These settings with one hyper-parameter changed, by its name in the field; those of the value need no prefix.
    ///
    /// # Errors
    ///
    /// When the method has no such hyper-parameter, or it cannot be `value`.
    pub fn with(&self, name: &str, value: Value) -> Result<Self, Failure> {
        let bug = |error: serde_json::Error| Failure::bad_input(error.to_string());
        let mut json = serde_json::to_value(self).map_err(bug)?;
        let fields = json.as_object_mut().expect("settings are an object");
        let names = |fields: &serde_json::Map<String, Value>| -> Vec<String> {
            fields.keys().filter(|name| !matches!(name.as_str(), "method" | "value")).cloned().collect()
        };
        let (own, of_value) = (names(fields), fields.get("value").and_then(Value::as_object).map(names));
        let of_value = of_value.unwrap_or_default();
        let slot = if own.iter().any(|own| own == name) {
            fields.get_mut(name)
        } else if of_value.iter().any(|of_value| of_value == name) {
            fields.get_mut("value").and_then(|value| value.get_mut(name))
        } else {
            let known: Vec<&str> = own.iter().chain(&of_value).map(String::as_str).collect();
            return Err(Failure::bad_input(unknown(&format!("hyper-parameter of {}", self.method()), name, &known)));
        };
        let shown = value.to_string();
        *slot.expect("it was just found") = value;
        serde_json::from_value(json)
            .map_err(|error| Failure::bad_input(format!("{name} cannot be {shown}: {}", plain(&error))))
    }

    /// These settings as a grid's file lists them: the method, and every hyper-parameter by its name in the field.
    pub fn settings(&self) -> serde_json::Map<String, Value> {
        let json = serde_json::to_value(self).unwrap_or_default();
        let mut settings = serde_json::Map::new();
        for (name, value) in json.as_object().into_iter().flatten() {
            match value {
                Value::Object(of_value) if name == "value" => settings.extend(of_value.clone()),
                // Where nothing is said a grid says nothing, either.
                Value::Null => {}
                value => drop(settings.insert(name.clone(), value.clone())),
            }
        }
        settings.retain(|_, value| !value.is_null());
        settings
    }

    /// Whether there is a hyper-parameter of this name.
    pub fn has(&self, name: &str) -> bool {
        let json = serde_json::to_value(self).unwrap_or_default();
        let of = |fields: &Value| fields.as_object().is_some_and(|fields| fields.contains_key(name));
        !matches!(name, "method" | "value") && (of(&json) || json.get("value").is_some_and(of))
    }

    /// Reads `hparams/METHOD/MODEL.toml`: these settings, changed where the file says so. `file` is its name in messages.
    ///
    /// # Errors
    ///
    /// When the text is no TOML, or names an unknown or impossible setting.
    pub fn with_toml(&self, file: &str, text: &str) -> Result<Self, Failure> {
        let wrong = |problem: String| Failure::bad_input(format!("{file}: {problem}"));
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| wrong(error.to_string()))?;
        let mut settings = self.clone();
        for (name, value) in table {
            let several: Vec<(String, toml::Value)> = match value {
                toml::Value::Table(value) if name == "value" => value.into_iter().collect(),
                single => vec![(name, single)],
            };
            for (name, value) in several {
                let value = serde_json::to_value(value).map_err(|error| wrong(error.to_string()))?;
                settings = settings.with(&name, value).map_err(|failure| wrong(failure.message))?;
            }
        }
        settings.validate().map_err(|failure| wrong(failure.message))?;
        Ok(settings)
    }
}

fn plain(error: &serde_json::Error) -> String {
    error.to_string().replace('`', "\"")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ArchitectureKind, RomeSpec};

    fn rome() -> EditorSpec {
        EditorSpec::published("rome", ArchitectureKind::Gpt2).unwrap()
    }

    #[test]
    fn settings_are_listed_as_a_grid_reads_them() {
        for method in EditorSpec::METHODS {
            let preset = EditorSpec::published(method, ArchitectureKind::Gpt2).unwrap();
            let settings = preset.settings();
            assert_eq!(settings["method"], *method);
            assert!(!settings.contains_key("value"));
            let given = settings.iter().filter(|(name, _)| *name != "method");
            let again = given.fold(preset.clone(), |editor, (name, value)| editor.with(name, value.clone()).unwrap());
            assert_eq!(again, preset, "{method}");
        }
    }

    #[test]
    fn a_file_changes_what_it_names() {
        let read =
            rome().with_toml("x.toml", "layers = [17] # a third up\nmom2_adjustment = true\n[value]\nv_lr = 0.1\n");
        let mut expected = RomeSpec { layers: Some(vec![17]), mom2_adjustment: true, ..RomeSpec::default() };
        expected.value.v_lr = 0.1;
        assert_eq!(read, Ok(EditorSpec::Rome(expected)));
    }

    #[track_caller]
    fn check_refused(text: &str, parts: &[&str]) {
        let failure = rome().with_toml("rome/x.toml", text).unwrap_err();
        for part in ["rome/x.toml"].iter().chain(parts) {
            assert!(failure.message.contains(part), "{failure}\nlacks {part:?}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_file_is_named() {
        check_refused("layers = [", &["line 1"]);
        check_refused("layer = 17", &["unknown hyper-parameter of rome \"layer\"; did you mean \"layers\"?"]);
        check_refused("[value]\nv_lrr = 1", &["did you mean \"v_lr\"?"]);
        check_refused("[value]\nv_lr = \"fast\"", &["v_lr cannot be \"fast\""]);
        check_refused("[value]\nv_lr = -1.0", &["v_lr is -1"]);
        check_refused("layers = [1, 2]", &["exactly one layer"]);
        check_refused("method = \"kn\"", &["unknown hyper-parameter of rome \"method\""]);
    }
}
