//! The program away from its repository: what it finds beside itself, and what it says it is.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use crate::desk::rectify;

/// A folder with the program in `bin/`.
fn installed() -> (tempfile::TempDir, PathBuf) {
    let prefix = tempfile::tempdir().expect("a folder");
    let program = prefix.path().join("bin/rectify");
    fs::create_dir(prefix.path().join("bin")).expect("a folder");
    let built = env!("CARGO_BIN_EXE_rectify");
    fs::hard_link(built, &program).or_else(|_| fs::copy(built, &program).map(drop)).expect("the program");
    (prefix, program)
}

/// A static folder that has a list of models and nothing else.
fn statics(folder: &Path) -> String {
    fs::create_dir_all(folder).expect("a folder");
    fs::write(folder.join("models.json"), r#"{"models": []}"#).expect("writes");
    fs::canonicalize(folder).expect("there").display().to_string()
}

#[test]
fn what_comes_with_the_program_is_found_wherever_it_is_installed() {
    let (prefix, program) = installed();
    let elsewhere = tempfile::tempdir().expect("a folder");
    let found = |more: &dyn Fn(&mut Command)| {
        let mut command = Command::new(&program);
        command.args(["models", "where"]).current_dir(elsewhere.path()).env_remove("RECTIFY_STATIC");
        more(&mut command);
        let Output { status, stdout, stderr } = command.output().expect("starts");
        assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
        String::from_utf8(stdout).expect("text").trim().to_owned()
    };
    // From the last place that is looked at to the first.
    let shared = statics(&prefix.path().join("share/rectify/static"));
    assert_eq!(found(&|_| {}), shared);
    let beside = statics(&prefix.path().join("bin/static"));
    assert_eq!(found(&|_| {}), beside);
    let here = statics(&elsewhere.path().join("static"));
    assert_eq!(found(&|_| {}), here);
    assert_eq!(found(&|command| _ = command.env("RECTIFY_STATIC", &shared)), shared);
    assert_eq!(found(&|command| _ = command.env("RECTIFY_STATIC", &shared).args(["--static", &beside])), beside);
}

#[cfg(unix)]
#[test]
fn a_link_to_the_program_finds_what_lies_beside_the_program() {
    let (prefix, program) = installed();
    let shared = statics(&prefix.path().join("share/rectify/static"));
    let elsewhere = tempfile::tempdir().expect("a folder");
    let link = elsewhere.path().join("rectify");
    std::os::unix::fs::symlink(program, &link).expect("a link");
    let output = Command::new(link).args(["models", "where"]).current_dir(elsewhere.path()).output().expect("starts");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), shared);
}

#[test]
fn a_folder_that_was_named_and_holds_no_models_is_an_error() {
    crate::desk::check_refused(
        &["models", "where", "--static", "nowhere"],
        &["nowhere/models.json", "--static or RECTIFY_STATIC"],
    );
}

#[cfg(unix)]
#[test]
fn the_page_is_found_where_it_is_installed() {
    use std::{
        io::{BufRead as _, BufReader, Read as _, Write as _},
        net::TcpStream,
        process::Stdio,
    };
    let (prefix, program) = installed();
    statics(&prefix.path().join("share/rectify/static"));
    let site = prefix.path().join("share/rectify/site");
    let serve = || {
        let mut server = Command::new(&program)
            .args(["serve", "--listen", "127.0.0.1:0"])
            .current_dir(prefix.path())
            .stderr(Stdio::piped())
            .spawn()
            .expect("starts");
        let mut said = BufReader::new(server.stderr.take().expect("piped")).lines().map(|line| line.expect("text"));
        let listening = said.next().expect("says where it listens");
        let address = listening.rsplit("http://").next().expect("an address");
        let mut client = TcpStream::connect(address).expect("connects");
        client.write_all(format!("GET / HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes()).unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).expect("an answer");
        server.kill().expect("kills");
        server.wait().expect("ends");
        (answer, said.collect::<Vec<_>>().join("\n"))
    };
    let (answer, said) = serve();
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    let bin = fs::canonicalize(prefix.path().join("bin/rectify")).unwrap().with_file_name("site").display().to_string();
    for part in ["no index.html in any of ./dist", &bin, "share/rectify/site", "--site"] {
        assert!(said.contains(part), "{said}\nlacks {part:?}");
    }
    fs::create_dir_all(&site).expect("a folder");
    fs::write(site.join("index.html"), "<title>the page</title>").expect("writes");
    let (answer, said) = serve();
    assert!(answer.ends_with("<title>the page</title>"), "{answer}");
    assert!(!said.contains("warning"), "{said}");
}

#[test]
fn the_version_says_which_commit_which_devices_and_which_machine() {
    let output = rectify(&["--version"]);
    let said = String::from_utf8(output.stdout).expect("text");
    let version = concat!("rectify ", env!("CARGO_PKG_VERSION"), " (");
    let rest = said.trim().strip_prefix(version).and_then(|rest| rest.strip_suffix(')')).expect(&said);
    let [commit, devices, target] = rest.split("; ").collect::<Vec<_>>().try_into().expect(&said);
    let known = commit.strip_prefix("commit ").is_some_and(|commit| !commit.is_empty());
    assert!(known || ["unknown commit", "development build"].contains(&commit), "{said}");
    assert!(devices.split(", ").next() == Some("cpu"), "{said}");
    assert!(target.contains(std::env::consts::ARCH), "{said}");
}

#[test]
fn stderr_can_be_read_by_programs() {
    let lines = |args: &[&str]| {
        let output = rectify(&[args, &["--messages", "json"]].concat());
        let text = String::from_utf8(output.stderr).expect("text");
        let json = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap_or_else(|_| panic!("{text}"));
        text.lines().map(json).collect::<Vec<_>>()
    };
    let model = crate::desk::golden("gpt2-tiny");
    let [failure] = &lines(&["ask", "--model", "nowhere", "--prompt", "x"])[..] else { panic!("one line") };
    assert_eq!(failure["failure"]["kind"], "not_found");
    assert!(failure["failure"]["message"].as_str().expect("text").contains("nowhere"));
    let [warning] = &lines(&["ask", "--model", &model, "--prompt", "The ", "--tokens", "1"])[..] else {
        panic!("one line")
    };
    assert!(warning["warning"].as_str().expect("text").starts_with("the prompt ends in a space"));
}
