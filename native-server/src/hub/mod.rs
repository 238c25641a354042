//! What comes from the network: the table of data sets in [`sets`], and how a file comes from there to a folder in
//! [`fetch`]; models by their names in [`models`].

pub mod fetch;
pub mod models;
pub mod sets;
