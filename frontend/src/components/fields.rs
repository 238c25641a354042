//! Form parts that several forms share.

use leptos::prelude::*;

/// One of a row of radio buttons that looks like a switch.
#[component]
pub fn Segment(
    /// Groups the buttons.
    name: &'static str,
    /// The button's id.
    #[prop(into)]
    id: String,
    /// What it says.
    #[prop(into)]
    label: String,
    /// Whether it is the chosen one.
    #[prop(into)]
    checked: Signal<bool>,
    /// Whether it can be chosen.
    #[prop(into, default = false.into())]
    disabled: Signal<bool>,
    /// Called when the visitor chooses it.
    choose: impl Fn() + 'static,
) -> impl IntoView {
    view! {
        <span class="segment">
            <input
                type="radio"
                name=name
                id=id.clone()
                prop:checked=checked
                prop:disabled=disabled
                on:change=move |_| choose()
            />
            <label for=id>{label}</label>
        </span>
    }
}

/// A row of [`Segment`]s with its name.
#[component]
pub fn Segments(
    /// What is chosen here.
    legend: &'static str,
    /// Whether the name is drawn or only read out.
    #[prop(default = false)]
    named: bool,
    /// Whether the row fills its card.
    #[prop(default = false)]
    wide: bool,
    /// The segments.
    children: Children,
) -> impl IntoView {
    view! {
        <fieldset class="choice" class:wide=wide>
            <legend class=if named { "label" } else { "unseen" }>{legend}</legend>
            <div class="segments">{children()}</div>
        </fieldset>
    }
}

/// A line of text with its name; what cannot be taken is said so and changes nothing.
#[component]
pub fn TextField(
    /// The input's id.
    #[prop(into)]
    id: String,
    /// What it is called.
    #[prop(into)]
    label: String,
    /// The name used in papers and on the command line.
    #[prop(into)]
    name: String,
    /// The text, as it was last taken.
    #[prop(into)]
    value: Signal<String>,
    /// Called with what was typed; says what is wrong with it.
    set: impl Fn(&str) -> Result<(), String> + 'static,
) -> impl IntoView {
    let wrong = RwSignal::new(None::<String>);
    let complaint = move || {
        wrong.get().map(|wrong| {
            let stays = value.get();
            if stays.is_empty() { format!("{wrong}; left empty") } else { format!("{wrong}; {stays} is kept") }
        })
    };
    view! {
        <div class="field">
            <label for=id.clone()>{label}" "<code>{name}</code></label>
            <input
                id=id.clone()
                type="text"
                inputmode="decimal"
                autocomplete="off"
                prop:value=value
                aria-invalid=move || wrong.with(Option::is_some).to_string()
                aria-describedby=format!("{id}-wrong")
                on:change=move |event| wrong.set(set(&event_target_value(&event)).err())
            />
            <p class="wrong" id=format!("{id}-wrong")>{complaint}</p>
        </div>
    }
}

/// A share in percent: a slider with its name and its value.
#[component]
pub fn ShareField(
    /// The slider's id.
    id: &'static str,
    /// What is kept.
    #[prop(into)]
    label: Signal<String>,
    /// The share.
    #[prop(into)]
    percent: Signal<u32>,
    /// Called with a share from 1 to 100 while the slider moves.
    set: impl Fn(u32) + 'static,
    /// Whether it stands still.
    #[prop(into, default = false.into())]
    disabled: Signal<bool>,
) -> impl IntoView {
    view! {
        <div class="field">
            <label for=id>{label} " " <output for=id>{percent}"%"</output></label>
            <input
                id=id
                type="range"
                min="1"
                max="100"
                style=move || format!("--share: {}%", percent.get())
                prop:value=move || percent.get().to_string()
                prop:disabled=disabled
                on:input=move |event| {
                    if let Ok(percent) = event_target_value(&event).parse() {
                        set(percent);
                    }
                }
            />
        </div>
    }
}
