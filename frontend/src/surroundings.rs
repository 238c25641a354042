//! What the page finds around it: its address, files beside it, a server, a graphics card, the visitor's theme.

use gloo_net::http::{Request, RequestBuilder, Response};
use js_sys::{Function, Promise, Reflect};
use leptos::{
    ev,
    prelude::{document, window, window_event_listener},
};
use rectify_protocol::{Catalog, Fact, RowsFile};
use wasm_bindgen::{JsCast, JsValue, closure::Closure};
use wasm_bindgen_futures::JsFuture;
use web_sys::{IntersectionObserver, IntersectionObserverEntry, ResizeObserver, UrlSearchParams};

/// The page's address up to its last slash.
pub fn base() -> String {
    let here = document().base_uri().ok().flatten().unwrap_or_default();
    let path = here.split(['?', '#']).next().unwrap_or_default();
    path.rfind('/').map_or_else(String::new, |slash| path[..=slash].to_owned())
}

/// A parameter of the page's address: `?device=flex`.
pub fn parameter(name: &str) -> Option<String> {
    let search = window().location().search().ok()?;
    UrlSearchParams::new_with_str(&search).ok()?.get(name)
}

/// Whether this is `embed.html`, which some hosts call `embed`.
pub fn is_embedded() -> bool {
    let path = window().location().pathname().unwrap_or_default();
    matches!(path.rsplit('/').next(), Some("embed.html" | "embed"))
}

/// The page's address between its `?` and its `#`.
pub fn query() -> String {
    let search = window().location().search().unwrap_or_default();
    search.strip_prefix('?').unwrap_or_default().to_owned()
}

/// The end of the page's address, from its `#` on.
pub fn address_end() -> String {
    window().location().hash().unwrap_or_default()
}

/// Calls `tell` with the address's new end whenever it changes, as long as the page is there.
pub fn on_address_change(tell: impl Fn(String) + 'static) {
    window_event_listener(ev::hashchange, move |_| tell(address_end()));
}

/// Changes the end of the page's address, as a link would.
pub fn go_to(end: &str) {
    let _ = window().location().set_hash(end);
}

/// Leaves the page for another.
pub fn leave_for(address: &str) {
    let _ = window().location().set_href(address);
}

/// Calls `tell` when the page is left or closed.
pub fn on_leaving(tell: impl Fn() + 'static) {
    window_event_listener(ev::pagehide, move |_| tell());
}

/// Sends a request to delete something that is on its way even when the page is gone.
pub fn delete_while_leaving(address: &str) {
    let settings = js_sys::Object::new();
    let set = |name: &str, value: JsValue| Reflect::set(&settings, &name.into(), &value).is_ok();
    if let Ok(Ok(fetch)) = Reflect::get(&window(), &"fetch".into()).map(JsCast::dyn_into::<Function>)
        && set("method", "DELETE".into())
        && set("keepalive", true.into())
    {
        // Nobody is left to hear the answer.
        let _ = fetch.call2(&window(), &address.into(), &settings);
    }
}

/// The names of the server's sweeps.
pub async fn sweeps() -> Result<Vec<String>, String> {
    read_json("api/sweeps").await
}

/// The files of one of the server's sweeps: names and texts.
pub async fn sweep(name: &str) -> Result<Vec<(String, String)>, String> {
    let folder = format!("api/sweeps/{}", js_sys::encode_uri_component(name));
    let mut texts = Vec::new();
    for file in read_json::<Vec<RowsFile>>(&folder).await? {
        let path = format!("{folder}/{}", js_sys::encode_uri_component(&file.name));
        texts.push((file.name, read_text(&path).await?));
    }
    Ok(texts)
}

/// A file that the visitor chose: its path within the folder they chose, or its name, and its text.
pub async fn chosen_file(file: &web_sys::File) -> Result<(String, String), String> {
    let path = Reflect::get(file, &"webkitRelativePath".into()).ok().and_then(|path| path.as_string());
    let path = path.filter(|path| !path.is_empty()).unwrap_or_else(|| file.name());
    match JsFuture::from(file.text()).await {
        Ok(text) => Ok((path, text.as_string().unwrap_or_default())),
        Err(error) => Err(format!("{path} could not be read: {error:?}")),
    }
}

/// The models that lie beside the page.
pub async fn catalog() -> Result<Catalog, String> {
    read_json("models.json").await
}

/// Ready facts to try.
pub async fn examples() -> Result<Vec<Fact>, String> {
    facts("facts/examples.json").await
}

/// A list of facts beside the page.
pub async fn facts(path: &str) -> Result<Vec<Fact>, String> {
    read_json(path).await
}

/// The models of the server that this page came from, if it runs sessions.
pub async fn server_catalog() -> Option<Catalog> {
    read_json("api/models").await.ok()
}

async fn read_json<T: serde::de::DeserializeOwned>(path: &str) -> Result<T, String> {
    answer(path).await?.json().await.map_err(|error| format!("{path} is not in the expected form: {error}"))
}

async fn read_text(path: &str) -> Result<String, String> {
    answer(path).await?.text().await.map_err(|error| format!("{path} broke off: {error}"))
}

async fn answer(path: &str) -> Result<Response, String> {
    let answer = Request::get(&format!("{}{path}", base())).send().await;
    let answer = answer.map_err(|error| format!("{path} could not be fetched: {error}"))?;
    if !answer.ok() {
        return Err(format!("{path} could not be fetched: the server answered {}", answer.status()));
    }
    Ok(answer)
}

/// Whether this browser has a graphics card for us and the worker for it is there; if not, why.
pub async fn webgpu() -> Result<(), String> {
    let gpu = Reflect::get(&window().navigator(), &"gpu".into()).unwrap_or(JsValue::UNDEFINED);
    if gpu.is_undefined() {
        return Err(if window().is_secure_context() {
            "this browser does not offer WebGPU".into()
        } else {
            "browsers offer WebGPU only at https and localhost addresses".into()
        });
    }
    let adapter = async {
        let request: Function = Reflect::get(&gpu, &"requestAdapter".into())?.dyn_into()?;
        JsFuture::from(request.call0(&gpu)?.dyn_into::<Promise>()?).await
    };
    match adapter.await {
        Ok(adapter) if !adapter.is_null() => {}
        Ok(_) => return Err("this browser has WebGPU but found no graphics card it trusts".into()),
        Err(error) => return Err(format!("asking for a graphics card failed: {error:?}")),
    }
    let worker = RequestBuilder::new(&format!("{}webgpu/rectify-worker_bg.wasm", base()));
    let found = worker.method(gloo_net::http::Method::HEAD).send().await;
    match found {
        Ok(found) if found.ok() && found.headers().get("content-type").is_some_and(|kind| kind.contains("wasm")) => {
            Ok(())
        }
        _ => Err("this copy of the page was built without its WebGPU worker".into()),
    }
}

/// `light` or `dark`: what the visitor chose before, else what the system prefers.
pub fn theme() -> String {
    let chosen = document().document_element().and_then(|root| root.get_attribute("data-theme"));
    chosen.unwrap_or_else(|| if prefers("(prefers-color-scheme: dark)") { "dark" } else { "light" }.into())
}

/// Shows a theme and remembers it.
pub fn set_theme(theme: &str) {
    if let Some(root) = document().document_element() {
        let _ = root.set_attribute("data-theme", theme);
    }
    // Without storage (a private window) the theme is forgotten, nothing worse.
    if let Ok(Some(storage)) = window().local_storage() {
        let _ = storage.set_item("rectify-theme", theme);
    }
}

/// Shows a theme here and now; `None` for what the system prefers.
pub fn show_theme(theme: Option<&str>) {
    if let Some(root) = document().document_element() {
        let _ = match theme {
            Some(theme) => root.set_attribute("data-theme", theme),
            None => root.remove_attribute("data-theme"),
        };
    }
}

/// Puts a text on the clipboard; whether that was allowed.
pub async fn copy(text: &str) -> bool {
    // Not there where the page came by plain HTTP from another machine.
    let clipboard = Reflect::get(&window().navigator(), &"clipboard".into()).unwrap_or(JsValue::UNDEFINED);
    match clipboard.dyn_into::<web_sys::Clipboard>() {
        Ok(clipboard) => JsFuture::from(clipboard.write_text(text)).await.is_ok(),
        Err(_) => false,
    }
}

/// Tells the page that holds this one something, whoever that is: nothing is said that the visitor does not see.
pub fn tell_parent(name: &str, detail: &serde_json::Value) {
    let message = serde_json::json!({ "rectify": name, "detail": detail }).to_string();
    let (Ok(Some(parent)), Ok(message)) = (window().parent(), js_sys::JSON::parse(&message)) else { return };
    if parent != window() {
        let _ = parent.post_message(&message, "*"); // one that is gone need not be told
    }
}

/// Calls `tell` once, when this page is first seen, be it through the window of another.
pub fn once_seen(tell: impl FnOnce() + 'static) {
    let mut tell = Some(tell);
    let seen = Closure::<dyn FnMut(js_sys::Array, IntersectionObserver)>::new(
        move |entries: js_sys::Array, observer: IntersectionObserver| {
            let mut entries = entries.iter().filter_map(|entry| entry.dyn_into::<IntersectionObserverEntry>().ok());
            if entries.any(|entry| entry.is_intersecting()) {
                observer.disconnect();
                if let Some(tell) = tell.take() {
                    tell();
                }
            }
        },
    );
    if let (Ok(observer), Some(body)) = (IntersectionObserver::new(seen.as_ref().unchecked_ref()), document().body()) {
        observer.observe(&body);
    }
    seen.forget(); // the page is there as long as it may be seen
}

/// Calls `tell` with the height of what the page holds, in CSS pixels, now and whenever it changes.
pub fn on_height_change(tell: impl Fn(i32) + 'static) {
    let Some(body) = document().body() else { return };
    let grown = Closure::<dyn Fn()>::new({
        let body = body.clone();
        move || tell(body.offset_height())
    });
    if let Ok(observer) = ResizeObserver::new(grown.as_ref().unchecked_ref()) {
        observer.observe(&body);
    }
    grown.forget(); // as above
}

/// Makes the page at least so many CSS pixels high.
pub fn set_least_height(pixels: usize) {
    if let Some(body) = document().body() {
        let _ = body.set_attribute("style", &format!("min-height: {pixels}px"));
    }
}

/// Lets the visitor keep a text as a file.
pub fn download(name: &str, text: &str) {
    let parts = js_sys::Array::of1(&text.into());
    let Ok(blob) = web_sys::Blob::new_with_str_sequence(&parts) else { return };
    let Ok(address) = web_sys::Url::create_object_url_with_blob(&blob) else { return };
    if let Ok(link) = document().create_element("a") {
        let link: web_sys::HtmlElement = link.unchecked_into();
        let _ = link.set_attribute("href", &address);
        let _ = link.set_attribute("download", name);
        link.click();
    }
    let _ = web_sys::Url::revoke_object_url(&address);
}

/// Brings an element into view where the page is one column wide.
pub fn reveal_on_small_screens(id: &str) {
    if prefers("(max-width: 760px)")
        && let Some(element) = document().get_element_by_id(id)
    {
        element.scroll_into_view();
    }
}

fn prefers(query: &str) -> bool {
    window().match_media(query).ok().flatten().is_some_and(|found| found.matches())
}
