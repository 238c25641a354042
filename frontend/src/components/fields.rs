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

/// A number with its name; text that is no such number is said so and changes nothing.
#[component]
pub fn NumberField(
    /// The input's id.
    id: &'static str,
    /// What it is called.
    label: &'static str,
    /// The name used in papers and on the command line.
    name: &'static str,
    /// The number.
    #[prop(into)]
    value: Signal<f64>,
    /// Called with a number from `min` to `max`.
    set: impl Fn(f64) + 'static,
    /// The smallest allowed.
    min: f64,
    /// The largest allowed.
    max: f64,
    /// Whether only whole numbers are.
    #[prop(default = false)]
    whole: bool,
) -> impl IntoView {
    let wrong = RwSignal::new(false);
    let kind = if whole { "a whole number" } else { "a number" };
    let complaint = move || wrong.get().then(|| format!("{kind} from {min} to {max}; {} stays", value.get()));
    let hear = move |text: String| match text.trim().parse::<f64>() {
        Ok(number) if (min..=max).contains(&number) && (!whole || number.fract() == 0.0) => {
            wrong.set(false);
            set(number);
        }
        _ => wrong.set(true),
    };
    view! {
        <div class="field">
            <label for=id>{label}" "<code>{name}</code></label>
            <input
                id=id
                type="text"
                inputmode="decimal"
                autocomplete="off"
                prop:value=move || value.get().to_string()
                aria-invalid=move || wrong.get().to_string()
                aria-describedby=format!("{id}-wrong")
                on:change=move |event| hear(event_target_value(&event))
            />
            <p class="wrong" id=format!("{id}-wrong")>{complaint}</p>
        </div>
    }
}
