//! One file per page, and which of them is seen.

mod edit;
mod embed;
mod runs;
mod sweeps;

pub use embed::EmbedPage;
use leptos::prelude::*;
use rectify_protocol::{Failure, unknown};

use crate::{
    components::{CopyCitation, Header},
    desk::Desk,
    ids,
    link::Setup,
    surroundings, view,
};

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
        let name = address.split(['?', '/']).next().unwrap_or_default();
        Self::ALL.iter().find(|(_, _, end)| *end == name).map_or(Self::Edit, |(page, ..)| *page)
    }

    /// The end of its address.
    pub fn end(self) -> &'static str {
        Self::ALL.iter().find(|(page, ..)| *page == self).map_or("", |(.., end)| end)
    }
}

/// What a link says, where the end of an address is one.
fn linked(address: &str) -> Option<Result<Setup, Failure>> {
    let (page, setup) = address.split_once('?')?;
    let ends = Page::ALL.map(|(.., end)| end);
    Some(match ends.contains(&page) {
        true => Setup::parse(setup),
        false => Err(Failure::bad_input(unknown("page in the address:", page, &ends))),
    })
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
    let address = surroundings::address_end();
    let page = RwSignal::new(Page::at(&address));
    let desk = Desk::new();
    let job = RwSignal::new(job_of(&address));
    let open = move |address: &str| {
        if let Some(link) = linked(address) {
            desk.open(link);
        }
    };
    open(&address);
    surroundings::on_address_change(move |end| {
        page.set(Page::at(&end));
        job.set(job_of(&end));
        open(&end);
    });
    view! {
        <Header desk page />
        <LinkProblem desk />
        <div hidden=move || page.get() != Page::Edit><edit::EditPage desk /></div>
        <div hidden=move || page.get() != Page::Sweeps><sweeps::SweepsPage desk page /></div>
        <div hidden=move || page.get() != Page::Runs><runs::RunsPage desk page watched=job.into() /></div>
        <footer>
            <p>
                "Editing with " <a href="https://arxiv.org/abs/2202.05262">"ROME"</a> ", kept gentle with "
                <a href="https://arxiv.org/abs/2401.04700">"RECT"</a> ", computed where you choose."
            </p>
            <CopyCitation />
        </footer>
    }
}

/// Why the page does not show what a link was meant to.
#[component]
fn LinkProblem(desk: Desk) -> impl IntoView {
    let problem = move || {
        let said = view::sentence(desk.link_problem.get().as_ref()?);
        Some(format!("This link cannot be shown as it was meant. {said}"))
    };
    view! {
        <div class="banner" role="alert">
            <p id=ids::LINK_PROBLEM class="error">{problem}</p>
        </div>
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_names_its_page_and_a_link_says_more() {
        assert_eq!(Page::at("#sweeps"), Page::Sweeps);
        assert_eq!(Page::at("#sweeps?v=1"), Page::Sweeps);
        assert_eq!(Page::at(""), Page::Edit);
        assert!(linked("").is_none() && linked("#edit").is_none());
        assert_eq!(linked("#edit?v=1"), Some(Ok(Setup::default())));
        assert!(linked("#edits?v=1").unwrap().unwrap_err().message.contains("unknown page"));
    }
}
