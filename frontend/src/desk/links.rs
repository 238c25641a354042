//! Links that lead to what is on the table, what a link puts there, and a model that waits to be wanted.

use leptos::{prelude::*, task::spawn_local};
use rectify_protocol::{Failure, Kind, Method, ModelInfo, Regularizer};

use super::{ASK_ABOVE, Desk, Settings, settings::USUAL};
use crate::{
    engine::{Place, State},
    link::Setup,
    methods,
};

impl Desk {
    /// What is set up, as a link says it: the form, not what became of the model.
    pub fn setup(self) -> Setup {
        let editor = self.settings.editor();
        let own = self.engine.model.with(|model| {
            let editors = model.as_ref().map(|model| model.editors.as_slice()).unwrap_or_default();
            editors.iter().find(|own| own.method() == editor.method()).cloned()
        });
        let linked = self.linked.with(|linked| linked.as_ref().map(|linked| linked.settings.clone()));
        Setup {
            model: Some(self.chosen.get()).filter(|id| !id.is_empty()),
            fact: Some(self.draft.fact()),
            method: Some(editor.method()),
            // Before the model is there, nothing but a link can have changed its settings.
            settings: own.map_or_else(|| linked.unwrap_or_default(), |own| methods::differences(&own, &editor)),
            regularizer: Some(self.settings.regularizer()),
            seed: Some(self.settings.seed.get()),
        }
    }

    /// Takes up what a link says, or says what is wrong with it. Edits nothing.
    pub fn open(self, link: Result<Setup, Failure>) {
        match link {
            Err(problem) => self.link_problem.set(Some(problem)),
            Ok(setup) => {
                self.link_problem.set(None);
                self.fill(&setup);
                self.take_up_linked();
            }
        }
    }

    /// Goes over to the model that a link speaks of.
    fn take_up_linked(self) {
        let Some(id) = self.linked_model() else { return };
        let loading = self
            .engine
            .activity
            .with_untracked(|activity| matches!(activity, Some(activity) if activity.doing == "load"));
        match self.engine.model.get_untracked() {
            _ if id != self.chosen.get_untracked() => spawn_local(self.load(id)),
            Some(model) if !loading => {
                self.shown.set(None);
                self.settings.suit(&model);
                self.set_linked(&model);
                spawn_local(self.catch_up());
            }
            _ => {} // it is on its way
        }
    }

    /// Fills the forms with what a link says, and leaves what only the model can tell for later.
    pub(super) fn fill(self, setup: &Setup) {
        let Settings { method, regularizer, keep_percent, base, seed, .. } = self.settings;
        if let Some(fact) = &setup.fact {
            self.draft.fill(fact);
        }
        method.set(setup.method.unwrap_or(Method::ALL[0].name));
        seed.set(setup.seed.unwrap_or_default());
        let kept = setup.regularizer.unwrap_or(USUAL);
        regularizer.set(kept.name());
        keep_percent.set(methods::kept_percent(if kept.keep().is_some() { kept } else { USUAL }));
        base.set(if let Regularizer::Prune { base } = kept { base } else { std::f64::consts::E });
        self.linked.set(Some(setup.clone()));
    }

    /// The model that a link speaks of, or the chosen one where it speaks of none. Where there is no such model, nothing,
    /// and that is said. Where the catalog is still to come, nothing either.
    pub(super) fn linked_model(self) -> Option<String> {
        let id = self.linked.with_untracked(|setup| setup.as_ref()?.model.clone());
        let chosen = self.chosen.get_untracked();
        let Some(id) = id else { return Some(chosen).filter(|id| !id.is_empty()) };
        let models = untrack(|| self.models());
        if models.is_empty() || models.iter().any(|model| model.id == id) {
            return Some(id).filter(|_| !models.is_empty());
        }
        let ids: Vec<&str> = models.iter().map(|model| model.id.as_str()).collect();
        let problem = format!("there is no model {id:?} here; there are {}", ids.join(", "));
        self.link_problem.set(Some(Failure::new(Kind::NotFound, problem)));
        None
    }

    /// Sets what a link says of the model's settings, now that the model is there.
    pub(super) fn set_linked(self, model: &ModelInfo) {
        let Some(setup) = self.linked.get_untracked() else { return };
        let another = setup.model.as_ref().filter(|id| **id != model.id);
        if another.is_some_and(|id| *id == self.chosen.get_untracked()) {
            return; // that one is still on its way
        }
        self.linked.set(None);
        if another.is_some() {
            return; // the visitor has chosen this one since
        }
        let editor = untrack(|| self.settings.editor());
        match methods::set_all(&editor, &setup.settings, model.layers) {
            Ok(editor) => self.settings.set_editor(editor),
            Err(problem) => self.link_problem.set(Some(Failure::bad_input(format!("settings: {problem}")))),
        }
    }

    /// Fetches the model of an embedded demonstration, unless it is there. Whether there is one now: not while the visitor
    /// is asked whether it may be that large.
    pub(super) async fn wake(self) -> bool {
        if !self.embedded || self.engine.model.with_untracked(Option::is_some) {
            return true;
        }
        let Some(model) = untrack(|| self.chosen_model()) else { return false };
        let size = model.size();
        let agreed = self.agreement.with_untracked(|agreement| matches!(agreement, Some((_, true))));
        if size > ASK_ABOVE && !agreed {
            self.agreement.set(Some((size, false)));
            return false;
        }
        if self.engine.state.get_untracked() != State::Running {
            self.engine.start(Place::Cpu);
        }
        self.load(model.id).await;
        self.engine.model.with_untracked(Option::is_some) && self.link_problem.with_untracked(Option::is_none)
    }
}
