//! Models: values that answer, can be resumed in the middle, and give an edited copy of themselves.
//!
//! A [`Model`] is a handful of counted tensor handles. Cloning one copies nothing; [`Model::apply`] returns another
//! that shares every weight but those it changes. Begin reading at [`Model::run`] and [`Frame`].

mod architecture;
mod attention;
mod checkpoint;
mod config;
mod delta;
mod embedding;
mod families;
mod frame;
pub mod generate;
mod gpt2;
mod gptj;
pub(crate) mod heads;
mod llama;
mod mistral;
mod parts;
mod presets;
mod qwen2;
mod qwen3;
mod rope;
mod rows;
pub(crate) mod sampling;
mod site;
mod tap;
mod tensors;
mod trunk;
mod weights;

pub use checkpoint::{Description, Layout, LoadedModel, Loader, model_hash};
pub use delta::{Delta, WeightDelta};
pub use frame::{Cache, Frame};
pub use presets::presets;
pub(crate) use rows::{index_tensor, padded};
pub use site::{Matrix, Shape, WeightSite};
pub use tap::{At, Capture, NoTap, Site, Tap};
pub use tensors::open;
pub(crate) use tensors::{floats, hex, metadata};
pub(crate) use trunk::Trunk;
pub use weights::Model;
