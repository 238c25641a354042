//! The device this build of the worker computes on. Each build has one, so nothing chooses here:
//! the page chooses by starting one worker or the other.

use burn::tensor::Device;
use rectify_protocol::Failure;

#[cfg(not(any(feature = "cpu", feature = "webgpu")))]
compile_error!("choose a device: the feature `cpu` or the feature `webgpu`");

/// What reports call the device.
pub const NAME: &str = if cfg!(feature = "webgpu") { "webgpu" } else { "flex" };

/// The CPU is always there.
#[cfg(not(feature = "webgpu"))]
pub async fn open() -> Result<Device, Failure> {
    Ok(Device::flex())
}

/// Asks the browser for a graphics card. Asked once: burn keeps the runtime, and a second request is an error.
#[cfg(feature = "webgpu")]
pub async fn open() -> Result<Device, Failure> {
    use rectify_protocol::Kind;
    use wasm_bindgen::JsValue;

    let navigator = js_sys::Reflect::get(&js_sys::global(), &"navigator".into()).unwrap_or(JsValue::UNDEFINED);
    let gpu = js_sys::Reflect::get(&navigator, &"gpu".into()).unwrap_or(JsValue::UNDEFINED);
    if gpu.is_undefined() {
        return Err(Failure::new(Kind::Device, "this browser offers no WebGPU to workers"));
    }
    Device::wgpu_options()
        .init_async()
        .await
        .map_err(|error| Failure::new(Kind::Device, format!("WebGPU gave no device: {error}")))
}
