//! The page: built by Trunk into `dist/`, the worker for WebGPU beside it, and served.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command},
};

use anyhow::{Context, Result, bail};

use crate::{
    Args,
    setup::Web,
    shell::{cargo, root, run, say, target_dir, web_target_dir},
    test,
};

/// The folder beside the page in which it looks for the worker that computes on WebGPU.
pub const WEBGPU: &str = "webgpu";
const WORKER: &str = "rectify-worker";
/// The demonstration for other sites, beside the page.
const EMBED: &str = "embed.html";

/// `cargo xtask play`: from nothing to a page one can use.
pub fn play(args: &mut Args) -> Result<()> {
    let port = args.value("--port")?.unwrap_or_else(|| "8080".into());
    let port: u16 = port.parse().with_context(|| format!("--port takes a number up to 65535, not {port:?}"))?;
    let with_webgpu = !args.flag("--no-webgpu");
    args.done()?;
    let web = Web::find_or_install()?;
    page(&web, Page::Play)?;
    let server = server()?;
    // The first time it takes many minutes, which nobody should wait for; later only our own part is compiled again.
    let built_before = web_target_dir().join(WEBGPU).is_dir();
    if with_webgpu && built_before {
        webgpu_worker(&web, false)?;
    }
    let mut serving = Serving::start(&server, port)?;
    let address = format!("http://127.0.0.1:{port}");
    say(format!("the playground is at {address}  (Ctrl-C ends it)"));
    if with_webgpu {
        say(
            "the worker for WebGPU is being built, for many minutes the first time; until then the page computes on the CPU",
        );
        match webgpu_worker(&web, false) {
            Ok(()) => say(format!("the worker for WebGPU is ready: load {address} again to use it")),
            Err(error) => say(format!("the worker for WebGPU could not be built, the page goes on without: {error:#}")),
        }
    }
    let status = serving.0.wait()?;
    if !status.success() {
        bail!("the server ended: {status}");
    }
    Ok(())
}

/// `cargo xtask web`.
pub fn web(args: &mut Args) -> Result<()> {
    let kind = if args.flag("--debug") { Page::Debug } else { Page::Publish };
    let with_webgpu = !args.flag("--no-webgpu");
    args.done()?;
    let web = Web::find_or_install()?;
    page(&web, kind)?;
    if with_webgpu {
        webgpu_worker(&web, false)?;
    }
    Ok(())
}

/// `cargo xtask webgpu`.
pub fn webgpu(args: &mut Args) -> Result<()> {
    let publish = args.flag("--publish");
    args.done()?;
    webgpu_worker(&Web::find_or_install()?, publish)
}

/// `cargo xtask site DIR`: the page for any static host, under any path.
pub fn site(args: &mut Args) -> Result<()> {
    let with_webgpu = !args.flag("--no-webgpu");
    let to = PathBuf::from(args.word().context("site takes the folder to write into")?);
    args.done()?;
    // What lay there before would stay, and be served beside a page that knows nothing of it.
    if to.is_dir() && fs::read_dir(&to)?.next().is_some() {
        bail!("{} is not empty; name a folder that is, or one that is not there", to.display());
    }
    let web = Web::find_or_install()?;
    page(&web, Page::Publish)?;
    if with_webgpu {
        webgpu_worker(&web, true)?;
    }
    let index = fs::read_to_string(dist().join("index.html"))?;
    if let Some(address) = absolute(&index) {
        bail!("index.html names {address:?}, which is elsewhere when the page does not lie at the top of its host");
    }
    copy_all(&dist(), &to)?;
    fs::write(to.join(".nojekyll"), "")?; // GitHub's pages would leave out files by their names
    say(format!("{} is the page, embed.html and rectify-demo.js with it; any static host can serve it", to.display()));
    Ok(())
}

/// The first address in a page that begins at its host's top.
fn absolute(html: &str) -> Option<&str> {
    let starts = ["=\"/", "='/", "from '/", "from \"/", "module_or_path: '/"];
    let at = starts.iter().filter_map(|start| Some(html.find(start)? + start.len() - 1)).min()?;
    html[at..].split(['"', '\'']).next()
}

/// Copies a folder and all that is in it.
fn copy_all(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("cannot make {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let entry = entry?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        match from.is_dir() {
            true => copy_all(&from, &to)?,
            false => {
                fs::copy(&from, &to).with_context(|| format!("cannot write {}", to.display()))?;
            }
        }
    }
    Ok(())
}

/// The folder that is served.
pub fn dist() -> PathBuf {
    root().join("dist")
}

/// What the page is built for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Page {
    /// To look for mistakes in it.
    Debug,
    /// To be used on this machine, at once.
    Play,
    /// To be fetched by others: wasm-opt makes it smaller, which takes minutes.
    Publish,
}

/// Builds the page and its worker for the CPU into [`dist`].
pub fn page(web: &Web, kind: Page) -> Result<()> {
    say("building the page");
    let mut trunk = web.command("trunk");
    trunk.args(["build", "--skip-version-check"]).env_remove("NO_COLOR");
    if kind != Page::Debug {
        trunk.arg("--release");
    }
    if kind == Page::Play {
        trunk.env("RECTIFY_WASM_OPT", "off");
    }
    run(&mut trunk)?;
    // The demonstration that other sites hold is the same program; its address alone, which a server may let others
    // frame, makes it one.
    fs::copy(dist().join("index.html"), dist().join(EMBED)).context("the page was built, but not into dist/")?;
    Ok(())
}

/// Builds the worker for WebGPU and puts it beside the page.
///
/// It is large. To `publish` it is compiled for speed and then made smaller by wasm-opt, which takes many minutes; to play
/// and to test it is compiled quickly, for the graphics processor does the work.
pub fn webgpu_worker(web: &Web, publish: bool) -> Result<()> {
    let mut build = web.command("cargo");
    build.args(["build", "--package", "rectify-worker", "--target", "wasm32-unknown-unknown", "--release"]);
    build.args(["--no-default-features", "--features", "webgpu"]);
    if !publish {
        build.env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1");
    }
    run(&mut build)?;

    let made = web_target_dir().join(WEBGPU);
    fs::create_dir_all(&made)?;
    let mut bindgen = web.command("wasm-bindgen");
    bindgen.args(["--target", "no-modules", "--no-typescript", "--out-name", WORKER, "--out-dir"]).arg(&made);
    bindgen.arg(web_target_dir().join(format!("wasm32-unknown-unknown/release/{WORKER}.wasm")));
    run(&mut bindgen)?;
    let wasm = format!("{WORKER}_bg.wasm");
    if publish {
        say("wasm-opt makes the worker for WebGPU smaller, which takes minutes");
        let mut wasm_opt = web.command("wasm-opt");
        wasm_opt.arg(format!("--output={}", made.join("small.wasm").display())).arg("-Oz").arg(made.join(&wasm));
        run(&mut wasm_opt)?;
        fs::rename(made.join("small.wasm"), made.join(&wasm))?;
    }
    let folder = dist().join(WEBGPU);
    fs::create_dir_all(&folder)?;
    // The page looks for the program itself to know whether there is this worker, so it comes last.
    put(&root().join("frontend/worker").join(format!("{WORKER}_loader.js")), &folder)?;
    put(&made.join(format!("{WORKER}.js")), &folder)?;
    put(&made.join(&wasm), &folder)
}

/// Copies a file into a folder so that it appears there all at once.
fn put(file: &Path, folder: &Path) -> Result<()> {
    let to = folder.join(file.file_name().context("a file has a name")?);
    let part = to.with_extension("part");
    fs::copy(file, &part).with_context(|| format!("cannot copy {} to {}", file.display(), part.display()))?;
    fs::rename(&part, &to).with_context(|| format!("cannot write {}", to.display()))
}

/// Builds the server and command line as the tests do, so that nothing is compiled twice; returns where the program is.
pub fn server() -> Result<PathBuf> {
    say("building the server");
    run(cargo().arg("build").args(test::packages()).args(["--bin", "rectify"]))?;
    Ok(target_dir().join("debug").join(format!("rectify{}", std::env::consts::EXE_SUFFIX)))
}

/// `cargo xtask rectify`: the program with the arguments that follow.
pub fn rectify(args: &mut Args) -> Result<()> {
    let mut program = Command::new(server()?);
    // The exit status is the program's own, and nothing is printed after it.
    std::process::exit(program.args(args.rest()).status()?.code().unwrap_or(1));
}

/// A server that ends with this program.
struct Serving(Child);

impl Serving {
    fn start(server: &Path, port: u16) -> Result<Self> {
        let mut command = Command::new(server);
        command.args(["serve", "--listen", &format!("127.0.0.1:{port}"), "--site"]).arg(dist());
        command.arg("--data").arg(root().join("static")).current_dir(root());
        let mut serving = Self(command.spawn().with_context(|| format!("cannot start {}", server.display()))?);
        // A port that is taken ends the server at once; say so here rather than after the next build.
        std::thread::sleep(std::time::Duration::from_millis(500));
        if let Some(status) = serving.0.try_wait()? {
            bail!("the server did not start: {status}");
        }
        Ok(serving)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // Gone already is as good as killed.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_from_the_top_of_a_host_is_found() {
        assert_eq!(absolute("<link href=\"./style.css\"><a href=\"https://arxiv.org/abs\">"), None);
        assert_eq!(absolute("<link href=\"/style.css\">"), Some("/style.css"));
        assert_eq!(absolute("import init from '/rectify.js'; href=\"./a\""), Some("/rectify.js"));
    }
}
