use leptos::prelude::*;
use rectify_protocol::Regularizer;

use super::fields::ShareField;
use crate::{desk::Desk, ids, methods};

/// After an edit: how much of it is kept, to be changed without editing again.
#[component]
pub fn KeepLess(
    /// What it shows and changes.
    desk: Desk,
) -> impl IntoView {
    let entry = Memo::new(move |_| desk.shown_entry());
    let regularizer = Memo::new(move |_| entry.get().map(|entry| entry.regularizer));
    let percent = move || desk.wanted_percent.get().or(regularizer.get().map(methods::kept_percent)).unwrap_or(100);
    let of_what = move || if desk.ledger.with(Vec::len) > 1 { "each edit" } else { "the edit" };
    let label = move || match regularizer.get() {
        Some(Regularizer::Random { .. }) => format!("Of {}, keep at random", of_what()),
        Some(Regularizer::Pca { .. } | Regularizer::LowRank { .. }) => format!("Of {}, keep components:", of_what()),
        _ => format!("Of {}, keep the top", of_what()),
    };
    let waiting = move || desk.wanted_percent.with(Option::is_some);
    view! {
        <Show when=move || entry.with(Option::is_some)>
            <section
                class="card keep-less"
                aria-labelledby="keep-less-heading"
                id=ids::KEEP_NOW_CARD
                data-state=move || if waiting() { "waiting" } else { "idle" }
                data-keep=move || regularizer.get().map(|regularizer| methods::kept_percent(regularizer).to_string())
            >
                <h2 id="keep-less-heading">"What if less of it were kept?"</h2>
                <ShareField
                    id=ids::KEEP_NOW
                    label=Signal::derive(label)
                    percent=Signal::derive(percent)
                    set=move |percent| desk.keep(percent)
                    disabled=Signal::derive(move || desk.busy())
                />
                <p class="ticks" aria-hidden="true">
                    {[20, 40, 60, 80, 100]
                        .map(|tick| view! { <span style=format!("--at: {tick}%")>{tick}</span> })}
                </p>
                <p class="quiet" role="status">
                    {move || match waiting() {
                        true => "Asking the model again …",
                        false => "The change is trimmed again without a new optimisation; answers and numbers follow.",
                    }}
                </p>
            </section>
        </Show>
    }
}
