use leptos::prelude::*;

use super::fields::TextField;
use crate::{
    desk::Desk,
    methods::{self, Choice, Field, Kind},
};

/// The chosen method's hyper-parameters, named as in the field.
#[component]
pub fn AllSettings(
    /// What it shows and changes.
    desk: Desk,
) -> impl IntoView {
    let settings = desk.settings;
    // Which fields there are; what they hold is each field's own business.
    let fields = Memo::new(move |_| methods::fields(&settings.editor()));
    let method = settings.method;
    let seed = settings.seed;
    let own = move || {
        let editors = desk.engine.model.get().map(|model| model.editors).unwrap_or_default();
        editors.into_iter().find(|editor| editor.method() == method.get())
    };
    let changed = move || own().is_some_and(|own| own != settings.editor());
    view! {
        <div class="settings">
            <For each=move || fields.get() key=move |field| (method.get(), field.name.clone()) let:field>
                <SettingField desk field />
            </For>
            <TextField
                id="seed"
                label="Seed"
                name="seed"
                value=Signal::derive(move || seed.get().to_string())
                set=move |typed| methods::seed(typed).map(|number| seed.set(number))
            />
        </div>
        <Show when=changed>
            <button
                type="button"
                class="link"
                on:click=move |_| {
                    if let Some(own) = untrack(own) {
                        settings.set_editor(own);
                    }
                }
            >
                "back to this model's own settings"
            </button>
        </Show>
    }
}

/// One hyper-parameter.
#[component]
fn SettingField(desk: Desk, field: Field) -> impl IntoView {
    let settings = desk.settings;
    let Field { name, label, kind } = field;
    let id = format!("setting-{name}");
    let value = {
        let name = name.clone();
        Memo::new(move |_| methods::value(&settings.editor(), &name))
    };
    match kind {
        Kind::Text => {
            let n_layers = move || desk.engine.model.with(|model| model.as_ref().map_or(0, |model| model.layers));
            let set = {
                let name = name.clone();
                move |typed: &str| {
                    let editor = untrack(|| settings.editor());
                    methods::typed(&editor, &name, typed, untrack(n_layers)).map(|editor| settings.set_editor(editor))
                }
            };
            let value = Signal::derive(move || methods::text(&value.get()));
            view! { <TextField id label name value set /> }.into_any()
        }
        Kind::Flag => {
            let set = {
                let name = name.clone();
                move |event| {
                    let flag = event_target_checked(&event);
                    if let Ok(editor) = methods::set(&untrack(|| settings.editor()), &name, flag.into()) {
                        settings.set_editor(editor);
                    }
                }
            };
            view! {
                <label class="check">
                    <input id=id type="checkbox" prop:checked=move || value.get() == true on:change=set />
                    <span>{label} " " <code>{name}</code></span>
                </label>
            }
            .into_any()
        }
        Kind::Choice(choices) => {
            let options = choices.iter().enumerate().map(|(i, Choice { label, value: one })| {
                let one = one.clone();
                view! { <option value=i.to_string() prop:selected=move || value.get() == one>{*label}</option> }
            });
            let options = options.collect_view();
            let set = {
                let name = name.clone();
                move |event| {
                    let choice = event_target_value(&event).parse().ok().and_then(|i: usize| choices.get(i));
                    let set =
                        |choice: &Choice| methods::set(&untrack(|| settings.editor()), &name, choice.value.clone());
                    if let Some(Ok(editor)) = choice.map(set) {
                        settings.set_editor(editor);
                    }
                }
            };
            view! {
                <div class="field">
                    <label for=id.clone()>{label} " " <code>{name}</code></label>
                    <select id=id on:change=set>{options}</select>
                </div>
            }
            .into_any()
        }
    }
}
