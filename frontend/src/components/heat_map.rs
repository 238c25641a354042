use leptos::prelude::*;
use rectify_figures::heat;
use rectify_protocol::Blocks;

/// The relative change of a matrix, block by block, with the scale of its colours.
#[component]
pub fn HeatMap(
    /// What is drawn.
    blocks: Blocks,
) -> impl IntoView {
    let paths = heat::paths(&blocks)
        .into_iter()
        .map(|(level, path)| view! { <path d=path style=format!("fill: {}", heat::colour(level)) /> });
    view! {
        <svg
            class="heat"
            viewBox=format!("0 0 {} {}", blocks.rows, blocks.columns)
            preserveAspectRatio="none"
            shape-rendering="crispEdges"
            role="img"
            aria-label=heat::words(&blocks)
        >
            {paths.collect_view()}
        </svg>
    }
}

/// What the colours mean, once for all pictures.
#[component]
pub fn HeatScale() -> impl IntoView {
    view! {
        <p class="scale" aria-hidden="true"><i></i><span>"0"</span><span>"0.25"</span><span>"1 or more"</span></p>
        <p class="quiet">
            "|ΔW / W|, mean of each block: the key's entries run from left to right, the value's from top to bottom."
        </p>
    }
}
