//! stub
mod error;
pub mod model;
pub mod session;
pub use error::{Error, Result};
pub use session::Session;
