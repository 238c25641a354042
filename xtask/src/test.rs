//! Every test there is, counted together; and what CI checks besides.

use std::{fs, path::Path, process::Command};

use anyhow::{Result, bail};
use serde_json::json;

use crate::{
    Args, api, deny, edges,
    setup::{Browser, Web, lavapipe, sentence_pieces},
    shell::{cargo, run, run_watched, say, web_target_dir},
    tidy, web, wheel,
};

/// Packages whose tests run on this machine's processor.
const NATIVE: &[&str] = &[
    "rectify-protocol",
    "rectify-figures",
    "rectify-core",
    "rectify-server",
    "rectify-frontend",
    "rectify-tests",
    "rectify-parity",
    "xtask",
];
/// The one package more that only a browser runs.
const WORKER: &str = "rectify-worker";

/// What runs only where it is told of something that nobody else has.
const SKIPPED: &[(&str, &str)] = &[
    ("RECTIFY_REAL_MODEL", "SmolLM2-135M's capital, perplexity and answers to real tasks: a folder with the model"),
    ("RECTIFY_REAL_TEXT", "its perplexity: WikiText-2's validation text"),
    ("RECTIFY_REAL_DATA", "its answers beside transformers': a folder with the tasks' files"),
    ("RECTIFY_REAL_FACTS", "targets of zsRE and CounterFact on a real vocabulary: a folder with both edit sets"),
    ("RECTIFY_TEST_DEVICE", "golden's numbers and our own kernels on a graphics card: wgpu, vulkan or cuda"),
];

/// `cargo xtask ci`. Everything runs, so that one failure does not hide another.
pub fn ci(args: &mut Args) -> Result<()> {
    args.done()?;
    let mut failed = Vec::new();
    let mut check = |name: &str, result: Result<()>| {
        if let Err(error) = result {
            say(format!("{name} FAILED: {error:#}"));
            failed.push(name.to_owned());
        }
    };
    check("edges", edges::check());
    check("tidy", tidy::check());
    check("deny", deny::check());
    check("fmt", run(cargo().args(["fmt", "--all", "--check"])));
    check("clippy", clippy());
    check("test", all_tests());
    check("api", api::check());
    check("python", wheel::check());
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(())
}

/// Warnings are errors. Tests may wait for the device and print; the library they test may not.
///
/// All packages at once, so that burn is read once and not once for each choice of its features; that the worker's
/// WebGPU stays off here is what keeps this affordable.
fn clippy() -> Result<()> {
    let lint = || {
        let mut lint = cargo();
        lint.args(["clippy", "--quiet", "--package", WORKER]);
        lint.args(packages());
        lint
    };
    run(lint().args(["--", "-D", "warnings"]))?;
    let lenient = ["clippy::disallowed_methods", "clippy::disallowed_macros", "clippy::print_stdout"];
    let mut tests = lint();
    tests.args(["--features", "rectify-tests/web", "--all-targets", "--", "-D", "warnings"]);
    run(tests.args(lenient.iter().flat_map(|lint| ["-A", lint])))
}

/// `cargo xtask fuzz`: each reader has an equal share of the time.
pub fn fuzz(args: &mut Args) -> Result<()> {
    const READERS: u64 = 8;
    let minutes: u64 = args.value("--minutes")?.unwrap_or_else(|| "10".into()).parse()?;
    args.done()?;
    let mut fuzz = cargo();
    fuzz.args(["test", "--test", "fuzz"]).args(packages()).args(["--", "--nocapture"]);
    run(fuzz.env("RECTIFY_FUZZ_SECONDS", (minutes * 60 / READERS).to_string()))
}

/// `cargo xtask test`. With a word, only what runs on this machine's processor and has it in its name.
pub fn test(args: &mut Args) -> Result<()> {
    let name = args.word();
    args.done()?;
    match name {
        Some(name) => run(cargo().arg("test").args(packages()).arg(name)),
        None => all_tests(),
    }
}

fn all_tests() -> Result<()> {
    let mut tally = Tally::default();
    tally.step("native tests", native);
    match lavapipe() {
        // Whoever names a card has had its tests already.
        _ if named_card().is_some() => {}
        Ok(driver) => {
            tally.step("kernels for graphics cards, on the processor", |tally| on_lavapipe(&driver, tally));
        }
        Err(error) => say(format!("SKIPPED, for there is no lavapipe: kernels for graphics cards: {error:#}")),
    }
    match Web::find_or_install() {
        Ok(web) => {
            tally.step("golden numbers in WebAssembly", |tally| parity_in_browser(&web, tally));
            tally.step("browser tests", |tally| in_browser(&web, tally));
        }
        Err(error) => tally.step("browser tests", |_| Err(error)),
    }
    for (variable, what) in SKIPPED.iter().filter(|(variable, _)| std::env::var_os(variable).is_none()) {
        say(format!("SKIPPED, for {variable} is not set: {what}"));
    }
    for step in &tally.broken {
        say(format!("FAILED: {step}"));
    }
    println!("{} passed, {} failed", tally.passed, tally.failed);
    if tally.failed > 0 {
        bail!("not every test passed");
    }
    Ok(())
}

fn native(tally: &mut Tally) -> Result<()> {
    let mut test = cargo();
    test.args(["test", "--no-fail-fast"]).args(packages());
    if let Some(device) = named_card() {
        // The kernels' own tests compute on burn's default device.
        test.args(["--features", &format!("rectify-parity/{device}")]).env("BURN_DEVICE", device);
    }
    match sentence_pieces() {
        Ok(file) => {
            test.env("RECTIFY_SENTENCE_PIECES", file);
        }
        Err(error) => {
            say(format!("SKIPPED, for it could not be fetched: targets on a SentencePiece vocabulary: {error:#}"));
        }
    }
    tally.count(&mut test)
}

/// The graphics card that someone named.
fn named_card() -> Option<String> {
    std::env::var("RECTIFY_TEST_DEVICE").ok().filter(|device| device != "flex")
}

/// What runs on lavapipe of golden's tests: passes, edits of every family against the reference, stored weights. All of
/// them take half an hour on two cores.
const ON_LAVAPIPE: &[&str] = &["families::", "forward::", "edits::", "precision::", "laws::an_edited_weight"];

/// Our own kernels, and a part of golden's numbers, on a Vulkan driver that computes on the processor. Through `wgpu`,
/// which compiles WGSL as a browser does; the path of `vulkan`, through SPIR-V, ends the program there.
fn on_lavapipe(driver: &Path, tally: &mut Tally) -> Result<()> {
    let test = |what: &[&str]| {
        let mut test = cargo();
        test.args(["test", "--no-fail-fast"]).args(packages());
        test.args(["--features", "rectify-parity/wgpu"]).args(what);
        test.envs([("RECTIFY_TEST_DEVICE", "wgpu"), ("BURN_DEVICE", "wgpu")]);
        // By its old name too, for old loaders.
        test.env("VK_DRIVER_FILES", driver).env("VK_ICD_FILENAMES", driver);
        test
    };
    say(format!(
        "of golden's tests these: {}; all of them by VK_DRIVER_FILES={} RECTIFY_TEST_DEVICE=wgpu cargo xtask test",
        ON_LAVAPIPE.join(", "),
        driver.display()
    ));
    let kernels = tally.count(&mut test(&["--lib", "kernels::"]));
    let golden = tally.count(&mut test(&[&["--test", "parity", "--"], ON_LAVAPIPE].concat()));
    kernels.and(golden)
}

/// Always the same packages, so that cargo chooses the same features of what they share and compiles it once.
pub fn packages() -> impl Iterator<Item = &'static str> {
    NATIVE.iter().flat_map(|package| ["--package", package])
}

/// The parity tests again, compiled to WebAssembly as the page's worker is and run in a worker of Chromium.
fn parity_in_browser(web: &Web, tally: &mut Tally) -> Result<()> {
    let browser = Browser::find_or_install()?;
    let wanted = web_target_dir().join("webdriver.json");
    fs::create_dir_all(web_target_dir())?;
    fs::write(&wanted, json!({ "goog:chromeOptions": { "binary": browser.chromium } }).to_string())?;
    let mut test = web.command("cargo");
    test.args(["test", "--package", "rectify-parity", "--target", "wasm32-unknown-unknown", "--release"]);
    test.env("CHROMEDRIVER", &browser.driver).env("WASM_BINDGEN_TEST_WEBDRIVER_JSON", wanted);
    // In seconds: all tests together, and how long a busy machine may take to start the browser's driver.
    test.env("WASM_BINDGEN_TEST_TIMEOUT", "900").env("WASM_BINDGEN_TEST_DRIVER_TIMEOUT", "60");
    tally.count(&mut test)
}

/// The page itself, in Chromium, served by our server.
fn in_browser(web: &Web, tally: &mut Tally) -> Result<()> {
    let browser = Browser::find_or_install()?;
    web::page(web, web::Page::Publish)?;
    web::webgpu_worker(web, false)?;
    let server = web::server()?;
    let mut test = cargo();
    test.arg("test").args(packages()).args(["--features", "rectify-tests/web", "--test", "web"]);
    test.args(["--", "--test-threads=1"]).env("RECTIFY_SITE", web::dist()).env("RECTIFY_SERVER", server);
    test.env("CHROMIUM", &browser.chromium).env("CHROMEDRIVER", &browser.driver);
    tally.count(&mut test)
}

/// How many tests passed and failed. A step that breaks otherwise counts as one that failed.
#[derive(Default)]
struct Tally {
    passed: usize,
    failed: usize,
    broken: Vec<String>,
}

impl Tally {
    /// Runs a step and goes on whatever becomes of it.
    fn step(&mut self, name: &str, step: impl FnOnce(&mut Self) -> Result<()>) {
        say(name);
        let failed_before = self.failed;
        if let Err(error) = step(self) {
            self.broken.push(format!("{name}: {error:#}"));
            if self.failed == failed_before {
                self.failed += 1;
            }
        }
    }

    /// Runs a test command and adds up the lines in which it sums up.
    fn count(&mut self, command: &mut Command) -> Result<()> {
        let succeeded = run_watched(command, &mut |line| {
            if let Some((passed, failed)) = counts(line) {
                self.passed += passed;
                self.failed += failed;
            }
        })?;
        if !succeeded {
            bail!("see above");
        }
        Ok(())
    }
}

/// `test result: ok. 12 passed; 0 failed; 1 ignored; …` to `(12, 0)`.
fn counts(line: &str) -> Option<(usize, usize)> {
    let (_, counted) = line.trim().strip_prefix("test result: ")?.split_once(". ")?;
    let number = |what: &str| counted.split(';').find_map(|part| part.trim().strip_suffix(what)?.trim().parse().ok());
    Some((number("passed")?, number("failed")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargo_and_wasm_bindgen_sum_up_in_the_same_words() {
        assert_eq!(
            counts("test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.02s"),
            Some((12, 0))
        );
        assert_eq!(counts("test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 filtered out"), Some((1, 2)));
        assert_eq!(counts("running 3 tests"), None);
    }

    #[test]
    fn a_step_that_cannot_run_is_a_failure() {
        let mut tally = Tally::default();
        tally.step("nothing", |_| bail!("no such program"));
        assert_eq!((tally.passed, tally.failed, tally.broken.len()), (0, 1, 1));
    }
}
