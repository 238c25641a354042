use serde::{Deserialize, Serialize};

use crate::{
    Failure,
    bounds::{self, at_least_zero, finite_above_zero},
};

/// How MEND's hypernetwork is trained, <https://arxiv.org/abs/2110.11309>. Named as in the field; the defaults are the
/// published ones.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MendTraining {
    /// Rank of each layer of the hypernetwork; no more than its width is used.
    pub rank: usize,
    /// Adam's learning rate, of the step sizes α too: the published one of their own never takes effect.
    pub lr: f64,
    /// What every α begins at.
    pub edit_lr: f64,
    /// Weight of the edit's loss.
    pub cedit: f64,
    /// Weight of the divergence elsewhere.
    pub cloc: f64,
    /// What the edited model is asked for the edit's loss.
    pub outer: OuterPrompt,
    /// Steps whose gradients are averaged for one update.
    pub accumulate: usize,
    /// Norm above which an update's gradient is scaled down to it.
    pub clip: f64,
    /// Steps between two validations.
    pub validate_every: usize,
    /// Training ends when so many steps brought nothing better.
    pub patience: usize,
    /// Seeds the hypernetwork and the order of the facts.
    pub seed: u64,
}

/// Which prompt should answer the new object after an edit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OuterPrompt {
    /// Another way to put it, as MEND's authors do; a fact without one is asked as it was edited.
    Rephrase,
    /// The prompt that is edited, as EasyEdit does.
    Prompt,
}

impl OuterPrompt {
    /// Every name, as the command line writes it.
    pub const NAMES: &[&str] = &["rephrase", "prompt"];
}

impl Default for MendTraining {
    fn default() -> Self {
        Self {
            rank: 1920,
            lr: 1e-6,
            edit_lr: 1e-4,
            cedit: 0.1,
            cloc: 1.0,
            outer: OuterPrompt::Rephrase,
            accumulate: 10,
            clip: 100.0,
            validate_every: 1000,
            patience: 20_000,
            seed: 0,
        }
    }
}

impl MendTraining {
    /// Models narrower than this are small.
    const NARROW: usize = 512;

    /// Settings for a model of this width: the published ones, or for a small one what trains it in minutes.
    pub fn for_width(d_model: usize) -> Self {
        if d_model >= Self::NARROW {
            return Self::default();
        }
        Self { rank: 64, lr: 1e-4, validate_every: 500, patience: 5000, ..Self::default() }
    }

    /// Says which setting is impossible, by its name.
    ///
    /// # Errors
    ///
    /// When one is outside its range.
    pub fn validate(&self) -> Result<(), Failure> {
        bounds::within("rank", self.rank, 1..=bounds::RANK)?;
        let counts =
            [("accumulate", self.accumulate), ("validate_every", self.validate_every), ("patience", self.patience)];
        counts.iter().try_for_each(|(name, count)| bounds::within(name, *count, 1..=bounds::TRAINING))?;
        finite_above_zero(&[("lr", self.lr), ("clip", self.clip)])?;
        at_least_zero(&[("edit_lr", self.edit_lr), ("cedit", self.cedit), ("cloc", self.cloc)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(json: &str, complaint: Option<&str>) {
        let settings: MendTraining = serde_json::from_str(json).unwrap();
        match (settings.validate(), complaint) {
            (Ok(()), None) => {}
            (Err(failure), Some(part)) => assert!(failure.message.contains(part), "{failure}"),
            (found, expected) => panic!("expected {expected:?}, found {found:?}"),
        }
    }

    #[test]
    fn impossible_settings_are_named() {
        check("{}", None);
        check(r#"{"rank": 0}"#, Some("rank is 0"));
        check(r#"{"rank": 18446744073709551615}"#, Some("rank is 18446744073709551615"));
        check(r#"{"accumulate": 0}"#, Some("accumulate is 0"));
        check(r#"{"lr": -1}"#, Some("lr is -1"));
        check(r#"{"cedit": -0.1}"#, Some("cedit is -0.1"));
        MendTraining::for_width(64).validate().unwrap();
        assert_eq!(MendTraining::for_width(1600), MendTraining::default());
    }
}
