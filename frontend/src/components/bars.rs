use leptos::prelude::*;
use rectify_protocol::Candidate;

use crate::view;

/// Texts with their probabilities, as bars. Those that begin `wanted` are set apart.
#[component]
pub fn Bars(
    /// Best first.
    candidates: Vec<Candidate>,
    /// The new object, empty for none.
    #[prop(into, optional)]
    wanted: String,
) -> impl IntoView {
    let bars = candidates.into_iter().map(move |Candidate(text, p)| {
        let label = view::token(&text);
        let new = !text.trim().is_empty() && wanted.starts_with(text.trim());
        view! {
            <li class:new=new>
                <span class="word" title=label.clone()>{label.clone()}</span>
                <span class="track" aria-hidden="true"><i style=format!("width: {}", view::bar_width(p))></i></span>
                <code>{view::percent(p)}</code>
            </li>
        }
    });
    view! { <ul class="bars">{bars.collect_view()}</ul> }
}
