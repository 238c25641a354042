//! Our numbers beside those of the reference implementations, on two tiny trained models.
//!
//! `tests/golden/README.md` names every array and says how it was made. Tolerances are the ones it recommends: about
//! twenty times what the reference itself differs between f32 and f64.
//!
//! The same tests run natively and, compiled to WebAssembly as the page's worker is, in a worker of Chromium:
//! `cargo xtask test` does both. All but `real`, which reads a large model from a folder, and a browser has none.

mod edits;
mod families;
mod forward;
mod ft;
mod golden;
mod kn;
mod laws;
mod loading;
mod memit;
mod mend;
mod metrics;
mod precision;
#[cfg(not(target_arch = "wasm32"))]
mod real;
mod rect;
mod rome;
mod trace;

#[cfg(target_arch = "wasm32")]
wasm_bindgen_test::wasm_bindgen_test_configure!(run_in_dedicated_worker);
