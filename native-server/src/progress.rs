//! What a running command shows at a terminal.

use std::{
    cell::Cell,
    io::IsTerminal,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use rectify_protocol::Progress;

use crate::io::{self, Messages};

/// One line on stderr that follows the work; where stderr is no terminal, a line a minute, and for programs many.
#[derive(Debug)]
pub struct Line {
    bar: ProgressBar,
    prefix: String,
    /// Where stderr is no terminal: when it was last told.
    told: Option<Cell<Instant>>,
}

/// How often a file, a log or a program is told how far a command is.
fn tell_every() -> Duration {
    match Messages::spoken() {
        Messages::Text => Duration::from_secs(60),
        Messages::Json => Duration::from_millis(200),
    }
}

impl Line {
    /// A line that is not there yet.
    pub fn new() -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        let terminal = std::io::stderr().is_terminal() && Messages::spoken() == Messages::Text;
        if terminal {
            bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        let style = ProgressStyle::with_template("{spinner} {msg} {wide_bar} {pos}/{len}");
        bar.set_style(style.expect("the template is well-formed"));
        Self { bar, prefix: String::new(), told: (!terminal).then(|| Cell::new(Instant::now())) }
    }

    /// What the following progress belongs to: `fact 3 of 20`.
    pub fn about(&mut self, text: &str) {
        self.prefix = format!("{text}: ");
    }

    /// Shows how far a command is.
    pub fn show(&self, progress: &Progress) {
        let (text, done, total) = describe(progress);
        self.show_count(&text, done, total);
    }

    /// Says something that stays, above the line.
    pub fn say(&self, text: &str) {
        self.bar.suspend(|| io::say(text));
    }

    /// Shows how far a count is.
    pub fn show_count(&self, text: &str, done: u64, total: u64) {
        self.bar.set_length(total);
        self.bar.set_position(done);
        let text = format!("{}{text}", self.prefix);
        if let Some(told) = self.told.as_ref().filter(|told| told.get().elapsed() >= tell_every()) {
            told.set(Instant::now());
            io::say_progress(&text, done, total);
        }
        self.bar.set_message(text);
    }
}

impl Default for Line {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// The text, and how much of how much.
fn describe(progress: &Progress) -> (String, u64, u64) {
    match progress {
        Progress::Fetching { file, done, total } => (format!("reading {file}"), *done, total.unwrap_or(*done)),
        Progress::Preparing => ("preparing the model".into(), 0, 1),
        Progress::Measuring { after: false } => ("asking before the edit".into(), 0, 1),
        Progress::Measuring { after: true } => ("asking after the edit".into(), 0, 1),
        Progress::SamplingContexts { done, total } => ("sampling contexts".into(), *done as u64, *total as u64),
        Progress::Optimizing { step, steps, .. } => {
            let text = format!("loss {:.3}, p(target) {:.3}", step.loss(), step.p_target);
            (text, step.step as u64 + 1, *steps as u64)
        }
        Progress::Planning { done, total } => ("planning the update".into(), *done as u64, *total as u64),
        Progress::Applying => ("applying the update".into(), 1, 1),
        Progress::Asking { task, done, total } => (format!("asking {task}"), *done as u64, *total as u64),
        Progress::Tracing { done, total } => ("restoring states".into(), *done as u64, *total as u64),
        Progress::Playing(_) | Progress::Row(_) => ("writing facts one after another".into(), 0, 1),
    }
}
