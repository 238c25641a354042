//! One file per page, and which of them is seen.

mod edit;
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
}

impl Page {
    /// All of them: what each is called, and the end of its address.
    pub const ALL: [(Self, &str, &str); 2] = [(Self::Edit, "Edit", "#edit"), (Self::Sweeps, "Sweeps", "#sweeps")];

    fn at(address: &str) -> Self {
        Self::ALL.iter().find(|(_, _, end)| *end == address).map_or(Self::Edit, |(page, ..)| *page)
    }
}

/// All pages. The others are hidden and go on with what they do.
#[component]
pub fn Pages() -> impl IntoView {
    let desk = Desk::new();
    let page = RwSignal::new(Page::at(&surroundings::address_end()));
    surroundings::on_address_change(move |end| page.set(Page::at(&end)));
    view! {
        <Header desk page />
        <div hidden=move || page.get() != Page::Edit><edit::EditPage desk /></div>
        <div hidden=move || page.get() != Page::Sweeps><sweeps::SweepsPage desk page /></div>
        <footer>
            <p>
                "Editing with " <a href="https://arxiv.org/abs/2202.05262">"ROME"</a> ", kept gentle with "
                <a href="https://arxiv.org/abs/2401.04700">"RECT"</a> ", computed where you choose."
            </p>
        </footer>
    }
}
