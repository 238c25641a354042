// Starts the worker's WebAssembly, which lies beside this file. A failure is told to the page, never swallowed.
importScripts("./rectify-worker.js");
wasm_bindgen("./rectify-worker_bg.wasm").catch((error) => postMessage("stopped: " + error.message));
