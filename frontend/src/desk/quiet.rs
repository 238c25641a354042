//! What the page asks by itself, so that what it shows is true of the model as it is now. Nothing here shows that
//! something runs, and whatever the visitor asks comes first.

use gloo_timers::callback::Timeout;
use leptos::{prelude::*, task::spawn_local};
use rectify_protocol::{Command, Event, Over, bounds};

use super::{Desk, Entry, TOKENS, TOP};
use crate::{engine::State, methods};

/// How long a slider rests before its edits are regularised anew.
const REST_MILLISECONDS: u32 = 150;

/// What the page asks by itself: see [`Desk::catch_up`].
#[derive(Default)]
pub(super) struct Quiet {
    /// Whoever asks takes the next number; who finds that it is no longer the latest asks no more.
    turn: u32,
    /// Whether [`Desk::preview`] and [`Desk::changes`] are of the model as it is now.
    previewed: bool,
    compared: bool,
    /// Runs while a slider rests.
    rest: Option<Timeout>,
}

impl Desk {
    /// Asks for what is shown and no longer true: how the model completes the form's prompt, what is left of the shown
    /// edit, how far the weights are from the unedited ones. Whatever the visitor asks meanwhile comes first.
    pub async fn catch_up(self) {
        let turn = self.take_turn();
        let ready =
            self.engine.model.with_untracked(Option::is_some) && self.engine.activity.with_untracked(Option::is_none);
        if !ready || self.engine.state.get_untracked() != State::Running {
            return;
        }
        match untrack(|| self.shown_entry()) {
            None => self.preview_again(turn).await,
            Some(entry) => {
                self.measure_again(turn, entry).await;
                if !self.embedded {
                    self.compare_again(turn).await;
                }
            }
        }
        if !self.embedded {
            self.evaluate_again(turn).await;
        }
    }

    async fn preview_again(self, turn: u32) {
        let prompt = self.draft.prompt.get_untracked().trim_end().to_owned();
        let known = self.preview.with_untracked(|preview| preview.as_ref().is_some_and(|known| known.prompt == prompt));
        if prompt.is_empty() || (known && self.quiet.with_value(|quiet| quiet.previewed)) {
            return;
        }
        let ask = Command::Ask { prompt, tokens: TOKENS, top: TOP };
        if let Some(Event::Answered(answer)) = self.ask_quietly(turn, ask).await {
            self.preview.set(Some(answer));
            self.quiet.update_value(|quiet| quiet.previewed = true);
        }
    }

    async fn measure_again(self, turn: u32, entry: Entry) {
        if !entry.is_stale() {
            return;
        }
        if let Some(Event::Measured(facts)) = self.ask_quietly(turn, Command::Measure { facts: vec![entry.fact] }).await
        {
            let place = self.shown.get_untracked();
            self.ledger.update(|ledger| {
                if let Some(entry) = place.and_then(|place| ledger.get_mut(place)) {
                    entry.again = facts.into_iter().next();
                }
            });
        }
    }

    async fn compare_again(self, turn: u32) {
        if self.quiet.with_value(|quiet| quiet.compared) {
            return;
        }
        if let Some(Event::Changed(weights)) = self.ask_quietly(turn, Command::Changes).await {
            self.changes.set(weights);
            self.quiet.update_value(|quiet| quiet.compared = true);
        }
    }

    /// Asks without showing that something runs; nothing when it failed or somebody else's turn has come.
    pub(super) async fn ask_quietly(self, turn: u32, command: Command) -> Option<Event> {
        if !self.has_turn(turn) {
            return None;
        }
        self.engine.send_quietly(command).await.ok().filter(|_| self.has_turn(turn))
    }

    pub(super) fn take_turn(self) -> u32 {
        self.quiet.update_value(|quiet| quiet.turn += 1);
        self.quiet.with_value(|quiet| quiet.turn)
    }

    fn has_turn(self, turn: u32) -> bool {
        self.quiet.with_value(|quiet| quiet.turn == turn)
    }

    /// Says that the weights are others now than those that were asked about.
    pub(super) fn outdate(self) {
        self.quiet.update_value(|quiet| (quiet.previewed, quiet.compared) = (false, false));
        let edits = self.ledger.with_untracked(Vec::len);
        self.costs.update(|costs| costs.outdate(edits));
    }

    /// Keeps another share of every edit, once the slider has rested.
    pub fn keep(self, percent: u32) {
        self.wanted_percent.set(Some(percent));
        let rest = Timeout::new(REST_MILLISECONDS, move || spawn_local(self.keep_now(percent)));
        self.quiet.update_value(|quiet| quiet.rest = Some(rest)); // dropping the earlier one stops it
    }

    /// Regularises the edits anew, from what their editors planned, and asks again what is shown.
    async fn keep_now(self, percent: u32) {
        let Some(entry) = untrack(|| self.shown_entry()).filter(|_| !untrack(|| self.busy())) else {
            return self.wanted_percent.set(None);
        };
        let turn = self.take_turn();
        let regularizer = methods::keeping(entry.regularizer, percent);
        let command = Command::Regularize { regularizer, over: Over::Each, seed: entry.report.spec.seed };
        match self.engine.send_quietly(command).await {
            Ok(Event::Changed(_)) => {
                self.outdate();
                self.costs.update(|costs| costs.outdate(0)); // every earlier edit keeps another share too
                self.ledger.update(|ledger| {
                    // Older ones are settled: they keep what they kept.
                    for entry in ledger.iter_mut().rev().take(bounds::UNDO_DEPTH) {
                        (entry.regularizer, entry.again) = (regularizer, None);
                    }
                });
                if self.has_turn(turn) {
                    self.catch_up().await;
                }
            }
            Ok(_) => {} // somebody's turn came before it was done; nothing was changed
            Err(failure) => self.failure.set(Some(failure)),
        }
        // Unless the slider has moved on since.
        self.wanted_percent.update(|wanted| {
            wanted.take_if(|wanted| *wanted == percent);
        });
    }
}
