//! One file per page, and which of them is seen.

mod edit;
mod runs;
mod sweeps;

use leptos::prelude::*;

use crate::{components::Header, desk::Desk, surroundings};

/// The pages there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    /// A fact is edited.
    Edit,
    /// Grids of edits are drawn.
    Sweeps,
    /// A server runs them.
    Runs,
}

impl Page {
    /// All of them: what each is called, and the end of its address.
    pub const ALL: [(Self, &str, &str); 3] =
        [(Self::Edit, "Edit", "#edit"), (Self::Sweeps, "Sweeps", "#sweeps"), (Self::Runs, "Heavy runs", "#runs")];

    fn at(address: &str) -> Self {
        let name = address.split('/').next().unwrap_or_default();
        Self::ALL.iter().find(|(_, _, end)| *end == name).map_or(Self::Edit, |(page, ..)| *page)
    }
}

/// The job that an address names: `#runs/ID`.
fn job_of(address: &str) -> Option<String> {
    let id = address.strip_prefix("#runs/")?;
    let fits = !id.is_empty() && id.len() <= 64 && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
    fits.then(|| id.to_owned())
}

/// All pages. The others are hidden and go on with what they do.
#[component]
pub fn Pages() -> impl IntoView {
    let desk = Desk::new();
    let address = surroundings::address_end();
    let page = RwSignal::new(Page::at(&address));
    let job = RwSignal::new(job_of(&address));
    surroundings::on_address_change(move |end| {
        page.set(Page::at(&end));
        job.set(job_of(&end));
    });
    view! {
        <Header desk page />
        <div hidden=move || page.get() != Page::Edit><edit::EditPage desk /></div>
        <div hidden=move || page.get() != Page::Sweeps><sweeps::SweepsPage desk page /></div>
        <div hidden=move || page.get() != Page::Runs><runs::RunsPage desk page watched=job.into() /></div>
        <footer>
            <p>
                "Editing with " <a href="https://arxiv.org/abs/2202.05262">"ROME"</a> ", kept gentle with "
                <a href="https://arxiv.org/abs/2401.04700">"RECT"</a> ", computed where you choose."
            </p>
        </footer>
    }
}
