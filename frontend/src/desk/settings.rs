//! The form that says how to edit.

use leptos::prelude::*;
use rectify_protocol::{ArchitectureKind, EditSpec, EditorSpec, Method, ModelInfo, Regularizer};

use crate::methods;

/// What a fresh page keeps of a change.
pub(super) const USUAL: Regularizer = Regularizer::Rect { keep: Regularizer::KEEP };

/// How to edit.
#[derive(Clone, Copy)]
pub struct Settings {
    /// One of [`EditorSpec::METHODS`].
    pub method: RwSignal<&'static str>,
    /// Every method's hyper-parameters, as the visitor left them.
    pub editors: RwSignal<Vec<EditorSpec>>,
    /// One of [`Regularizer::NAMES`].
    pub regularizer: RwSignal<&'static str>,
    /// The share that the regularizer keeps, in percent.
    pub keep_percent: RwSignal<u32>,
    /// PRUNE's base.
    pub base: RwSignal<f64>,
    /// Seeds whatever is sampled.
    pub seed: RwSignal<u64>,
}

impl Settings {
    pub(super) fn new() -> Self {
        let published = |method: &&str| EditorSpec::published(method, ArchitectureKind::Gpt2);
        Self {
            method: RwSignal::new(Method::ALL[0].name),
            editors: RwSignal::new(EditorSpec::METHODS.iter().filter_map(published).collect()),
            regularizer: RwSignal::new(USUAL.name()),
            keep_percent: RwSignal::new(methods::kept_percent(USUAL)),
            base: RwSignal::new(std::f64::consts::E),
            seed: RwSignal::new(0),
        }
    }

    /// Every method's settings are another model's and give way to this one's.
    pub(super) fn suit(self, model: &ModelInfo) {
        self.editors.set(model.editors.clone());
    }

    /// The settings of the chosen method.
    pub fn editor(self) -> EditorSpec {
        let method = self.method.get();
        let own = self.editors.with(|editors| editors.iter().find(|editor| editor.method() == method).cloned());
        own.or_else(|| EditorSpec::published(method, ArchitectureKind::Gpt2)).unwrap_or_else(|| {
            unreachable!("the form offers the methods of protocol's list, and {method:?} is none of them")
        })
    }

    /// Takes these settings for their method.
    pub fn set_editor(self, editor: EditorSpec) {
        self.editors.update(|editors| {
            editors.retain(|other| other.method() != editor.method());
            editors.push(editor);
        });
    }

    /// What is kept of the update.
    pub fn regularizer(self) -> Regularizer {
        let keep = f64::from(self.keep_percent.get()) / 100.0;
        match self.regularizer.get() {
            "rect" => Regularizer::Rect { keep },
            "random" => Regularizer::Random { keep },
            "pca" => Regularizer::Pca { keep },
            "low_rank" => Regularizer::LowRank { keep },
            "prune" => Regularizer::Prune { base: self.base.get() },
            _ => Regularizer::None,
        }
    }

    /// Everything together.
    pub fn spec(self) -> EditSpec {
        untrack(|| EditSpec { regularizer: self.regularizer(), seed: self.seed.get(), ..EditSpec::new(self.editor()) })
    }
}
