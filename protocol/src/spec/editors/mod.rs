//! The editors, and what can be set of each: a file an editor, and a line of the table at [`EditorSpec`].

mod alphaedit;
mod emmet;
mod ft;
mod hyperparameters;
mod kn;
mod memit;
mod mend;
mod rome;

pub use alphaedit::AlphaEditSpec;
pub use emmet::EmmetSpec;
pub use ft::{FtObjective, FtSpec};
use hyperparameters::Hyperparameters;
pub use kn::{KnNeuron, KnSpec, KnVariant};
pub use memit::MemitSpec;
pub use mend::MendSpec;
pub use rome::{FactToken, KeyChoice, RomeSpec};
use serde::{Deserialize, Serialize};

use super::ValueSpec;
use crate::{ArchitectureKind, Failure, bounds};

/// A method of editing, for a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Method {
    /// As the command line, the page and every file write it.
    pub name: &'static str,
    /// As its authors write it.
    pub label: &'static str,
    /// Whether one operation may write several facts.
    pub writes_batches: bool,
    /// In a few words.
    pub gist: &'static str,
    /// What it does, in one sentence.
    pub words: &'static str,
}

/// Makes the enum of editors and the table of methods of the same lines.
macro_rules! editors {
    ($($variant:ident($spec:ident) { $($field:ident: $value:expr),* $(,)? })*) => {
        /// Which editor, with its hyper-parameters.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(tag = "method", rename_all = "lowercase")]
        pub enum EditorSpec {
            $(#[allow(missing_docs, reason = "its words stand in the table")] $variant($spec)),*
        }

        /// Every method, in the order in which they are listed everywhere.
        const TABLE: &[Method] = &[$(Method { $($field: $value),* }),*];

        impl EditorSpec {
            /// Every method's name.
            pub const METHODS: &[&str] = &{
                let mut names = [""; TABLE.len()];
                let mut i = 0;
                while i < names.len() {
                    names[i] = TABLE[i].name;
                    i += 1;
                }
                names
            };

            /// The published settings of one of [`Self::METHODS`] for a model family.
            pub fn published(method: &str, family: ArchitectureKind) -> Option<Self> {
                let all: &[fn(ArchitectureKind) -> Self] = &[$(|family| Self::$variant($spec::published(family))),*];
                Some(all[Method::place(method)?](family))
            }

            /// The same for a model with so many layers, those to edit chosen by a rule.
            pub fn preset(method: &str, family: ArchitectureKind, n_layers: usize) -> Option<Self> {
                let rules: &[fn(ArchitectureKind, usize) -> Option<Vec<usize>>] = &[$($spec::usual_layers),*];
                let mut editor = Self::published(method, family)?;
                if let Some(layers) = editor.layers_mut() {
                    *layers = rules[Method::place(method)?](family, n_layers);
                }
                Some(editor)
            }

            /// Which method this is, as a place in the table.
            fn place(&self) -> usize {
                enum Place { $($variant),* }
                match self { $(Self::$variant(_) => Place::$variant as usize),* }
            }

            fn hyperparameters(&self) -> &dyn Hyperparameters {
                match self { $(Self::$variant(spec) => spec),* }
            }

            fn hyperparameters_mut(&mut self) -> &mut dyn Hyperparameters {
                match self { $(Self::$variant(spec) => spec),* }
            }
        }
    };
}

editors! {
    Rome(RomeSpec) {
        name: "rome",
        label: "ROME",
        writes_batches: false,
        gist: "one matrix",
        words: "Writes the fact as one rank-one change of one matrix.",
    }
    Memit(MemitSpec) {
        name: "memit",
        label: "MEMIT",
        writes_batches: true,
        gist: "several layers",
        words: "Spreads the change over several layers, so that each changes less.",
    }
    Emmet(EmmetSpec) {
        name: "emmet",
        label: "EMMET",
        writes_batches: true,
        gist: "one matrix, in batches",
        words: "Keeps ROME's constraint, that each fact comes out exactly, and solves it for many facts at once, as MEMIT does.",
    }
    AlphaEdit(AlphaEditSpec) {
        name: "alphaedit",
        label: "AlphaEdit",
        writes_batches: true,
        gist: "where keys leave room",
        words: "Like MEMIT, but only in directions that the keys of other facts do not use.",
    }
    Kn(KnSpec) {
        name: "kn",
        label: "KN",
        writes_batches: false,
        gist: "knowledge neurons",
        words: "Finds the few neurons that hold the old answer and changes what they contribute.",
    }
    Mend(MendSpec) {
        name: "mend",
        label: "MEND",
        writes_batches: true,
        gist: "a learnt editor",
        words: "A small network, trained beforehand, turns the gradient of the new answer into the change.",
    }
    Ft(FtSpec) {
        name: "ft",
        label: "Fine-tuning",
        writes_batches: true,
        gist: "the plain way",
        words: "Trains the matrices of its layers on the fact without letting any number move far: the baseline for the others.",
    }
}

impl Method {
    /// Every method, in the order of [`EditorSpec::METHODS`].
    pub const ALL: &[Self] = TABLE;

    /// The method of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::place(name).map(|place| TABLE[place])
    }

    fn place(name: &str) -> Option<usize> {
        TABLE.iter().position(|method| method.name == name)
    }
}

impl EditorSpec {
    /// The method's line in the table.
    fn about(&self) -> &'static Method {
        &TABLE[self.place()]
    }

    /// The method's name.
    pub fn method(&self) -> &'static str {
        self.about().name
    }

    /// The method as its paper writes it.
    pub fn label(&self) -> &'static str {
        self.about().label
    }

    /// Whether one operation may write several facts.
    pub fn writes_batches(&self) -> bool {
        self.about().writes_batches
    }

    /// The layers to edit, for the methods that are told any; absent where it is left to the model.
    pub fn layers(&self) -> Option<&[usize]> {
        self.hyperparameters().layers()
    }

    /// Where [`Self::layers`] stands, for the methods that are told any.
    pub fn layers_mut(&mut self) -> Option<&mut Option<Vec<usize>>> {
        self.hyperparameters_mut().layers_mut()
    }

    /// How values are found, for the methods that look for any.
    pub fn value(&self) -> Option<&ValueSpec> {
        self.hyperparameters().value()
    }

    /// The same, to be changed.
    pub fn value_mut(&mut self) -> Option<&mut ValueSpec> {
        self.hyperparameters_mut().value_mut()
    }

    /// Whether the second moment of the edited layers' keys is needed.
    pub fn needs_moments(&self) -> bool {
        self.hyperparameters().needs_moments()
    }

    /// Says which setting is impossible, by its name. Whether the model has such a layer, only the model knows.
    ///
    /// # Errors
    ///
    /// When a hyper-parameter is outside its range, or there are too many layers or none.
    pub fn validate(&self) -> Result<(), Failure> {
        if let Some(layers) = self.layers() {
            bounds::entries("layers", layers, bounds::LAYERS)?;
            if layers.is_empty() || !layers.is_sorted_by(|a, b| a < b) {
                let problem = format_args!("is {layers:?}; list at least one, ascending, each once");
                return Err(Failure::bad_field("layers", problem));
            }
        }
        if let Some(value) = self.value() {
            value.validate()?;
        }
        self.hyperparameters().validate()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_table_is_its_editor_s() {
        for method in Method::ALL {
            let editor = EditorSpec::published(method.name, ArchitectureKind::Gpt2).unwrap();
            assert_eq!((editor.method(), editor.label()), (method.name, method.label));
            let json = serde_json::to_value(&editor).unwrap();
            assert_eq!(json["method"], method.name, "files name it as the table does");
        }
        assert_eq!(Method::named("rome").map(|method| method.label), Some("ROME"));
        assert_eq!(Method::named("rom"), None);
    }

    #[track_caller]
    fn check(method: &str, family: ArchitectureKind, n_layers: usize, expected: &[usize]) {
        let editor = EditorSpec::preset(method, family, n_layers).unwrap();
        assert_eq!(editor.layers(), Some(expected));
        editor.validate().unwrap();
    }

    #[test]
    fn the_rule_gives_the_published_layers() {
        use ArchitectureKind::{Gpt2, GptJ, Llama, Mistral, Qwen2};
        check("rome", Gpt2, 48, &[17]);
        check("rome", Gpt2, 36, &[12]);
        check("rome", Gpt2, 24, &[8]);
        check("rome", Llama, 32, &[5]);
        check("rome", GptJ, 28, &[5]);
        check("emmet", GptJ, 28, &[5]);
        check("rome", Qwen2, 28, &[5]);
        check("memit", Gpt2, 48, &[13, 14, 15, 16, 17]);
        check("memit", Llama, 32, &[4, 5, 6, 7, 8]);
        check("memit", Mistral, 32, &[4, 5, 6, 7, 8]);
        check("memit", GptJ, 28, &[3, 4, 5, 6, 7, 8]);
        check("memit", Qwen2, 28, &[4, 5, 6, 7, 8]);
        check("alphaedit", Gpt2, 48, &[13, 14, 15, 16, 17]);
        check("ft", Gpt2, 48, &[0]);
        check("ft", GptJ, 28, &[0]);
        check("ft", Llama, 32, &[21]);
        check("ft", Qwen2, 28, &[27]);
        check("memit", Gpt2, 1, &[0]);
        check("memit", GptJ, 1, &[0]);
    }

    #[test]
    fn every_rule_stays_within_the_model() {
        use ArchitectureKind::{Gpt2, GptJ, Llama, Mistral, Qwen2, Qwen3};
        for family in [Gpt2, GptJ, Llama, Mistral, Qwen2, Qwen3] {
            for method in EditorSpec::METHODS {
                for n in 1..100 {
                    let editor = EditorSpec::preset(method, family, n).unwrap();
                    editor.validate().unwrap();
                    assert!(editor.layers().unwrap_or_default().iter().all(|layer| *layer < n), "{method} {n}");
                }
            }
        }
    }
}
