//! The server's interface beside its description: a program makes requests of all kinds from it and holds the answers
//! against it.

use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result};

use crate::{
    Args,
    python::from_pypi,
    setup::tools,
    shell::{root, run, say, target_dir},
    web,
};

/// What makes the requests.
const SCHEMATHESIS: &str = "4.32.5";
/// Streams of events do not end by themselves; and what a session is told, the description leaves open.
const NOT_ASKED: &str = "/(events|commands)$";

/// `cargo xtask api`.
pub fn api(args: &mut Args) -> Result<()> {
    args.done()?;
    check()
}

/// Makes requests of a server of its own, with a seed. Skipped loudly where the program cannot be had.
pub fn check() -> Result<()> {
    let Some(schemathesis) = from_pypi("schemathesis", SCHEMATHESIS, "st", &tools().join("schemathesis"))? else {
        say(format!("the interface: SKIPPED, for there is no schemathesis {SCHEMATHESIS}, and pip cannot fetch it"));
        return Ok(());
    };
    let folder = target_dir().join("api");
    if folder.is_dir() {
        fs::remove_dir_all(&folder)?;
    }
    let server = Server::start(&folder)?;
    let mut asks = Command::new(schemathesis);
    asks.arg("--config-file").arg(root().join("xtask/schemathesis.toml"));
    asks.args(["run", &format!("{}/openapi.json", server.address), "--exclude-path-regex", NOT_ASKED]);
    asks.args(["--max-examples", "40", "--seed", "1", "--request-timeout", "20", "--no-color"]);
    run(asks.current_dir(&folder))
}

/// A server that ends with this program.
struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start(folder: &std::path::Path) -> Result<Self> {
        let mut command = Command::new(web::server()?);
        command.args(["serve", "--listen", "127.0.0.1:0", "--jobs"]).arg(folder.join("jobs"));
        let mut child = command.stderr(Stdio::piped()).spawn().context("the server starts")?;
        let mut lines = BufReader::new(child.stderr.take().context("stderr was piped")?).lines();
        let heard =
            lines.by_ref().map_while(Result::ok).find_map(|line| Some(line.split_once("listening on ")?.1.to_owned()));
        // It never waits for a reader.
        std::thread::spawn(move || lines.for_each(drop));
        Ok(Self { address: heard.context("the server says where it listens")?, child })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
