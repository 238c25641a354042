//! Rectify's page: what a session reports, drawn, and what a visitor does, sent to it as commands.
//!
//! It holds no tensor and knows no model: [`engine`] talks to a session in a worker or on a server, [`desk`] is what
//! the visitor has on the table, `components` draw it, and [`view`] and [`methods`] turn values into what is
//! drawn. The same program is the page, [`pages::Pages`], and the demonstration that other sites hold,
//! [`pages::EmbedPage`]: its address tells which.

mod components;
mod demo;
mod desk;
mod engine;
mod ids;
mod link;
mod methods;
mod pages;
mod runs;
mod surroundings;
mod view;

use leptos::prelude::*;

fn main() {
    console_error_panic_hook::set_once();
    match surroundings::is_embedded() {
        true => mount_to_body(|| view! { <pages::EmbedPage /> }),
        false => mount_to_body(|| view! { <pages::Pages /> }),
    }
}
