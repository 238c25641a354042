//! What is on the page, one part per file. A component draws signals and calls the [`crate::desk::Desk`].

mod abilities;
mod ask;
mod bars;
mod copy;
mod edit_form;
mod fact_form;
mod fields;
mod header;
mod heat_map;
mod how_it_works;
mod keep_less;
mod ledger;
mod loss_curve;
mod model_card;
mod play;
mod probes;
mod result;
mod settings;
mod weight_change;

pub use abilities::Abilities;
pub use ask::AskCard;
pub use copy::CopyCitation;
pub use edit_form::{EditForm, Objection, Progress};
pub use fact_form::FactForm;
pub use header::Header;
pub use how_it_works::HowItWorks;
pub use keep_less::KeepLess;
pub use ledger::Ledger;
pub use model_card::ModelCard;
pub use play::PlayCard;
pub use probes::Probes;
pub use result::ResultCard;
pub use weight_change::WeightChangeCard;
