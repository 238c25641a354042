//! Our numbers beside those of the reference implementations, on two tiny trained models.
//!
//! `tests/golden/README.md` names every array and says how it was made. Tolerances are the ones it recommends: about
//! twenty times what the reference itself differs between f32 and f64.

mod forward;
mod ft;
mod golden;
mod kn;
mod laws;
mod loading;
mod memit;
mod mend;
mod metrics;
mod real;
mod rect;
mod rome;
