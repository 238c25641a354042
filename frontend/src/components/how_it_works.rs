use leptos::prelude::*;

use crate::desk::Desk;

/// For whoever comes first: what the button will do. Gone after the first edit.
#[component]
pub fn HowItWorks(
    /// Says whether there were edits.
    desk: Desk,
) -> impl IntoView {
    let untouched = move || desk.ledger.with(Vec::is_empty) && !desk.busy();
    view! {
        <Show when=untouched>
            <section class="card" aria-labelledby="how-heading">
                <h2 id="how-heading">"What one edit does"</h2>
                <ol class="how">
                    <li>
                        <b>"Finds the place"</b>
                        <p>"In one layer, the last word of the subject works as a key by which the model looks up facts."</p>
                    </li>
                    <li>
                        <b>"Finds the value"</b>
                        <p>"A short search, shown live as a curve, finds what that layer would have to return for the new object to come out."</p>
                    </li>
                    <li>
                        <b>"Writes it down"</b>
                        <p>"One matrix changes so that the key gives the value. RECT applies only the entries that change most relative to the weight they change."</p>
                    </li>
                    <li>
                        <b>"Asks again"</b>
                        <p>"The same question, its rephrasings and its neighbours show whether the edit held and what else moved."</p>
                    </li>
                </ol>
            </section>
        </Show>
    }
}
