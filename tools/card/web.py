"""The page's WebGPU worker in a browser on this machine's card: `web.py PAGE WORK CHROMIUM [--software] [SHAPE:LAYER …]`.

PAGE holds `webgpu/`, the worker that `cargo xtask webgpu` builds. Models of random numbers are written into WORK. Each is
loaded and edited by ROME three times, twenty evaluations each: the first edit compiles what the others find compiled.
The browser draws on the card through Vulkan, or with --software on the processor.
"""

import hashlib
import http.server
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import make

HERE = Path(__file__).parent
LIMIT = 140
CONTEXTS = json.loads((HERE / "contexts.json").read_text())
FACT = {"subject": "Danielle Darrieux", "prompt": "The mother tongue of Danielle Darrieux is", "target_new": "English"}
SCRIPT = """
const say = line => fetch("/said", { method: "POST", body: JSON.stringify(line) });
const base = location.origin + "/";
async function main() {
    const adapter = await navigator.gpu?.requestAdapter();
    if (!adapter) throw new Error("the browser has no adapter for WebGPU");
    const info = adapter.info;
    await say(`adapter ${info.vendor} ${info.architecture}, shader-f16 ${adapter.features.has("shader-f16")}`);
    const worker = new Worker(`${base}webgpu/rectify-worker_loader.js?base=${encodeURIComponent(base)}`);
    const waiting = new Map();
    await new Promise((ready, failed) => {
        worker.onerror = error => failed(new Error(error.message || "no worker"));
        worker.onmessage = ({ data }) => {
            if (data === "ready") return ready();
            if (data.startsWith("stopped")) {
                for (const [, refuse] of waiting.values()) refuse(new Error(data));
                return failed(new Error(data));
            }
            const { id, event } = JSON.parse(data);
            if (event.progress === undefined) waiting.get(id)?.[0](event);
        };
    });
    let last = 0;
    const ask = command => new Promise((answer, refuse) => {
        waiting.set(++last, [answer, refuse]);
        worker.postMessage(JSON.stringify({ id: last, command }));
    });
    for (const job of JOBS) {
        let started = performance.now();
        const loaded = await ask({ load: { bundled: { id: job.name } } });
        if (!loaded.loaded) throw new Error(JSON.stringify(loaded));
        await say(`${job.name}: loaded in ${((performance.now() - started) / 1e3).toFixed(1)} s`);
        for (let i = 0; i < 3; i++) {
            started = performance.now();
            const { edited, ...other } = await ask({ edit: { facts: [job.fact], spec: job.spec } });
            if (!edited) throw new Error(JSON.stringify(other));
            const [all, editing] = [(performance.now() - started) / 1e3, edited.seconds];
            await say(`${job.name}: edit ${i + 1}: ${editing.toFixed(3)} s, with asking before and after ${all.toFixed(3)} s, `
                + `${edited.steps} evaluations, ‖ΔW‖ ${edited.delta_norm.toFixed(5)}`);
            await ask("undo");
        }
    }
}
main().then(() => say("done"), error => say(`FAILED: ${error.message}`).then(() => say("done")));
"""


def spec(layer):
    value = {
        "v_num_grad_steps": 20, "v_lr": 1e-6, "v_weight_decay": 0.5, "clamp_norm_factor": 4.0, "kl_factor": 0.0625,
        "contexts": {"given": CONTEXTS},
    }
    editor = {
        "method": "rome", "layers": [layer], "fact_token": "subject_last", "mom2_adjustment": False, "key": "mixed",
        "value": value,
    }
    guards = {"max_relative_norm": None, "max_perplexity_ratio": None}
    return {"editor": editor, "regularizer": {"name": "none"}, "seed": 0, "guards": guards}


def entry(work, shape):
    """What the catalogue says of a model."""
    files = []
    for path in sorted((work / shape).iterdir()):
        digest = hashlib.file_digest(path.open("rb"), "sha256").hexdigest()
        files.append({"path": path.name, "size": path.stat().st_size, "sha256": digest})
    config = json.loads((work / shape / "config.json").read_text())
    return {
        "id": shape, "name": shape, "folder": f"models/{shape}", "description": "numbers by chance", "licence": "MIT",
        "architecture": config["model_type"], "layers": config.get("n_layer") or config["num_hidden_layers"],
        "context": 1024, "memory_load": 1, "memory_edit": 1, "hparams": [], "files": files,
    }


def main(page, work, chromium, *jobs):
    software = "--software" in jobs
    jobs = [job.split(":") for job in jobs if job != "--software"] or [["small", "6"]]
    page, work = Path(page), Path(work)
    for shape, _ in jobs:
        make.main(work / shape, shape, HERE.parent.parent / "tokenizer.json")
    catalogue = json.dumps({"models": [entry(work, shape) for shape, _ in jobs]}).encode()
    told = json.dumps([{"name": shape, "fact": FACT, "spec": spec(int(layer))} for shape, layer in jobs])
    html = f"<!doctype html><title>measuring</title><script>const JOBS = {told};{SCRIPT}</script>".encode()
    done, failed = threading.Event(), threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            path = self.path.split("?")[0].lstrip("/")
            kind = {"js": "text/javascript", "wasm": "application/wasm", "json": "application/json"}
            if path == "":
                return self.answer(html, "text/html; charset=utf-8")
            if path == "models.json":
                return self.answer(catalogue, kind["json"])
            file = work / path[len("models/") :] if path.startswith("models/") else page / path
            if ".." in path or not file.is_file():
                return self.send_error(404)
            self.answer(file.read_bytes(), kind.get(file.suffix[1:], "application/octet-stream"))

        def do_POST(self):
            line = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.answer(b"", "text/plain")
            if line == "done":
                done.set()
            else:
                if line.startswith("FAILED"):
                    failed.set()
                print(f"{time.monotonic() - started:6.1f} {line}", flush=True)

        def answer(self, body, kind):
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    drawing = (
        ["--use-webgpu-adapter=swiftshader", "--enable-unsafe-swiftshader"]
        if software
        else ["--use-angle=vulkan", "--use-vulkan=native", "--disable-vulkan-surface", "--ignore-gpu-blocklist"]
    )
    started = time.monotonic()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        flags = [
            "--headless", "--no-sandbox", f"--user-data-dir={profile}", "--no-first-run", "--disable-quic",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--disable-dev-shm-usage", "--enable-unsafe-webgpu", "--enable-features=Vulkan",
        ]
        address = f"http://127.0.0.1:{server.server_port}/"
        with open(work / "browser.log", "w") as log:
            browser = subprocess.Popen([chromium, *flags, *drawing, address], stdout=log, stderr=log)
            try:
                if not done.wait(LIMIT):
                    failed.set()
                    print(f"STOPPED after {LIMIT} s; the browser's log is {work / 'browser.log'}")
            finally:
                browser.terminate()
                browser.wait()
    if failed.is_set():
        sys.exit(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
