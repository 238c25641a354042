use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::Failure;

/// What is kept of an update `ΔW`, per matrix. `keep` is a share in (0, 1].
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case")]
pub enum Regularizer {
    /// All of it.
    #[default]
    None,
    /// RECT: the entries with the largest `|ΔW / W|`, <https://arxiv.org/abs/2401.04700>.
    Rect {
        /// The share of entries that survive.
        keep: f64,
    },
    /// As many entries, drawn at random.
    Random {
        /// The share of entries that survive.
        keep: f64,
    },
    /// RECT's control as published: the scores of the principal components, written where the update stood.
    Pca {
        /// Components, as a share of the stored matrix' columns.
        keep: f64,
    },
    /// What the control was meant to be: the closest matrix of low rank.
    LowRank {
        /// The rank, as a share of the smaller side.
        keep: f64,
    },
    /// PRUNE: singular values beyond the weight's largest are reined in, <https://arxiv.org/abs/2405.16821>.
    /// Meant for the sum of a sequence's updates.
    Prune {
        /// The base of the logarithm that reins them in; the smaller, the less.
        base: f64,
    },
}

impl Regularizer {
    /// Every regularizer's name, as the command line and the page write it.
    pub const NAMES: &[&str] = &["none", "rect", "random", "pca", "low_rank", "prune"];
    /// The share that RECT's paper keeps.
    pub const KEEP: f64 = 0.4;

    /// The regularizer of that name; `keep` is [`Self::KEEP`] when absent.
    ///
    /// # Errors
    ///
    /// When there is no such name, or one that keeps no share is given one.
    pub fn named(name: &str, keep: Option<f64>) -> Result<Self, Failure> {
        if let (Some(_), "none" | "prune") = (keep, name) {
            let problem =
                format!("keep has no meaning for {name}; it is the share that rect, random, pca and low_rank keep");
            return Err(Failure::bad_input(problem));
        }
        let keep = keep.unwrap_or(Self::KEEP);
        Ok(match name {
            "none" => Self::None,
            "rect" => Self::Rect { keep },
            "random" => Self::Random { keep },
            "pca" => Self::Pca { keep },
            "low_rank" => Self::LowRank { keep },
            "prune" => Self::Prune { base: std::f64::consts::E },
            other => return Err(Failure::bad_input(super::unknown("regularizer", other, Self::NAMES))),
        })
    }

    /// The regularizer's name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Rect { .. } => "rect",
            Self::Random { .. } => "random",
            Self::Pca { .. } => "pca",
            Self::LowRank { .. } => "low_rank",
            Self::Prune { .. } => "prune",
        }
    }

    /// Says so when a number is impossible.
    ///
    /// # Errors
    ///
    /// When `keep` is not in (0, 1], or PRUNE's base not above 1.
    pub fn validate(&self) -> Result<(), Failure> {
        if let Self::Prune { base } = *self {
            return if base > 1.0 && base.is_finite() {
                Ok(())
            } else {
                Err(Failure::bad_input(format!("base is {base}; PRUNE's logarithm needs one above 1")))
            };
        }
        let keep = self.keep().unwrap_or(1.0);
        if keep > 0.0 && keep <= 1.0 {
            return Ok(());
        }
        Err(Failure::bad_input(format!(
            "keep is {keep}; it is the share of entries that survive, above 0 and at most 1"
        )))
    }

    /// The share of entries (or components) that survive, for those that keep a share.
    pub fn keep(&self) -> Option<f64> {
        match *self {
            Self::None | Self::Prune { .. } => None,
            Self::Rect { keep } | Self::Random { keep } | Self::Pca { keep } | Self::LowRank { keep } => Some(keep),
        }
    }
}

impl FromStr for Regularizer {
    type Err = Failure;

    /// `none`, `rect`, `rect 40%`, `rect 0.4`.
    fn from_str(text: &str) -> Result<Self, Failure> {
        let (name, keep) = text.split_once(' ').map_or((text, None), |(name, keep)| (name, Some(keep)));
        let keep = keep.map(|keep| share(keep.trim())).transpose()?;
        let regularizer = Self::named(name, keep)?;
        regularizer.validate()?;
        Ok(regularizer)
    }
}

impl fmt::Display for Regularizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.keep() {
            None => f.write_str(self.name()),
            // Shares are written by people, with few digits.
            Some(keep) => write!(f, "{} {}%", self.name(), (keep * 1e4).round() / 1e2),
        }
    }
}

/// `0.4` or `40%`.
fn share(text: &str) -> Result<f64, Failure> {
    let (number, unit) = text.strip_suffix('%').map_or((text, 1.0), |number| (number, 100.0));
    let number: f64 =
        number.parse().map_err(|_| Failure::bad_input(format!("{text:?} is not a share such as 0.4 or 40%")))?;
    Ok(number / unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_in_the_table_is_one_that_is_read() {
        for name in Regularizer::NAMES {
            let regularizer = Regularizer::named(name, None).unwrap();
            assert_eq!(regularizer.name(), *name);
            let json = serde_json::to_string(&regularizer).unwrap();
            assert_eq!(serde_json::from_str::<Regularizer>(&json).unwrap(), regularizer);
        }
    }

    #[test]
    fn a_regularizer_is_read_as_it_is_written() {
        for text in ["none", "rect 40%", "random 5%", "pca 40%", "low_rank 12.5%", "prune"] {
            assert_eq!(text.parse::<Regularizer>().unwrap().to_string(), text);
        }
        assert_eq!("rect".parse(), Ok(Regularizer::Rect { keep: 0.4 }));
        assert_eq!("rect 0.2".parse(), Ok(Regularizer::Rect { keep: 0.2 }));
    }

    #[track_caller]
    fn check_refused(regularizer: Result<Regularizer, Failure>, complaint: &str) {
        let failure = regularizer.and_then(|regularizer| regularizer.validate()).expect_err("refused");
        assert!(failure.message.contains(complaint), "{failure}");
    }

    #[test]
    fn impossible_shares_and_bases_are_named() {
        for keep in [0.0, -1.0, f64::NAN, 1.01, f64::INFINITY] {
            for name in ["rect", "random", "pca", "low_rank"] {
                check_refused(Regularizer::named(name, Some(keep)), "keep is");
            }
        }
        check_refused(Regularizer::named("none", Some(0.4)), "keep has no meaning");
        check_refused(Regularizer::named("rekt", None), "did you mean \"rect\"?");
        check_refused(Ok(Regularizer::Prune { base: 1.0 }), "base is 1");
        for keep in [0.4, 1.0, f64::MIN_POSITIVE] {
            assert!(Regularizer::Rect { keep }.validate().is_ok());
        }
    }
}
