//! What comes from the network: the table of data sets in [`sets`], and how a file comes from there to a folder in
//! [`fetch`]; models by their names in [`models`].

pub mod fetch;
pub mod models;
pub mod sets;

/// A variable of the environment that is set to something.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
}

/// The hub's address, without a slash at its end: `HF_ENDPOINT`, or the one that everybody means.
fn endpoint() -> String {
    let address = variable("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".into());
    address.trim_end_matches('/').to_owned()
}
