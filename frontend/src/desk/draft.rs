//! The fact form.

use leptos::prelude::*;
use rectify_protocol::{Fact, Neighbor};

/// A fact while it is being written.
#[derive(Clone, Copy)]
pub struct Draft {
    /// See [`Fact::subject`].
    pub subject: RwSignal<String>,
    /// See [`Fact::prompt`].
    pub prompt: RwSignal<String>,
    /// See [`Fact::target_new`].
    pub target_new: RwSignal<String>,
    /// See [`Fact::target_true`].
    pub target_true: RwSignal<String>,
    /// Other ways to ask.
    pub paraphrases: RwSignal<Vec<Line>>,
    /// Questions about something else.
    pub neighbors: RwSignal<Vec<Line>>,
    next_key: StoredValue<u32>,
}

/// A paraphrase or neighbour in the form.
#[derive(Clone, Copy)]
pub struct Line {
    /// Tells lines apart while they come and go.
    pub key: u32,
    /// What is asked.
    pub prompt: RwSignal<String>,
    /// A neighbour's right answer, where known.
    pub target: RwSignal<String>,
}

impl Draft {
    pub(super) fn new() -> Self {
        Self {
            subject: RwSignal::default(),
            prompt: RwSignal::default(),
            target_new: RwSignal::default(),
            target_true: RwSignal::default(),
            paraphrases: RwSignal::default(),
            neighbors: RwSignal::default(),
            next_key: StoredValue::new(0),
        }
    }

    /// Whether nothing has been written yet.
    pub fn is_empty(self) -> bool {
        [self.subject, self.prompt, self.target_new].iter().all(|field| field.with(|text| text.trim().is_empty()))
    }

    /// Whether anything is asked besides the prompt.
    pub fn has_probes(self) -> bool {
        !self.paraphrases.with(Vec::is_empty) || !self.neighbors.with(Vec::is_empty)
    }

    /// The form as a fact; empty lines are left out.
    pub fn fact(self) -> Fact {
        let text = |signal: RwSignal<String>| signal.with(|text| text.trim().to_owned());
        let known = |signal: RwSignal<String>| Some(text(signal)).filter(|text| !text.is_empty());
        let prompts = |lines: Vec<Line>| {
            lines.into_iter().filter_map(move |line| known(line.prompt).map(|prompt| (prompt, line)))
        };
        Fact {
            subject: text(self.subject),
            prompt: text(self.prompt),
            target_new: text(self.target_new),
            target_true: known(self.target_true),
            paraphrases: prompts(self.paraphrases.get()).map(|(prompt, _)| prompt).collect(),
            neighbors: prompts(self.neighbors.get())
                .map(|(prompt, line)| Neighbor { prompt, target: known(line.target) })
                .collect(),
            ..Fact::default()
        }
    }

    /// Writes a fact into the form.
    pub fn fill(self, fact: &Fact) {
        self.subject.set(fact.subject.clone());
        self.prompt.set(fact.prompt.clone());
        self.target_new.set(fact.target_new.clone());
        self.target_true.set(fact.target_true.clone().unwrap_or_default());
        self.paraphrases.set(fact.paraphrases.iter().map(|prompt| self.line(prompt, "")).collect());
        let neighbors = fact.neighbors.iter();
        self.neighbors.set(
            neighbors.map(|other| self.line(&other.prompt, other.target.as_deref().unwrap_or_default())).collect(),
        );
    }

    /// A new line for either list.
    pub fn line(self, prompt: &str, target: &str) -> Line {
        let key = self.next_key.get_value();
        self.next_key.set_value(key + 1);
        Line { key, prompt: RwSignal::new(prompt.to_owned()), target: RwSignal::new(target.to_owned()) }
    }
}
