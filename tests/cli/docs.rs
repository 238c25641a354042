//! Every command that the README and the book show is run, in order, as by a person who follows a chapter.
//!
//! A chapter has a folder of its own with a copy of `static/`, and the program is `rectify` on the path. What a test has
//! not is marked behind the block's language, as in `sh,network`; such blocks are counted and named, and not run.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// What a block may need that a test has not.
const NEEDS: &[(&str, &str)] = &[
    ("network", "the Hugging Face Hub, or where data sets lie"),
    ("card", "a graphics card"),
    ("source", "the repository, and minutes of compiling"),
    ("slow", "minutes"),
    ("server", "a server that runs meanwhile"),
    ("cluster", "Slurm, or several machines"),
];

#[test]
fn every_command_of_the_readme_and_the_book_runs() {
    let (mut run, mut failed) = (0, Vec::new());
    let mut skipped: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for file in documents() {
        let mut desk = None;
        for Block { line, info, text } in blocks(&file) {
            let place = format!("{file}:{line}");
            match need(&info) {
                Err(problem) => failed.push(format!("{place}: {problem}")),
                Ok(Shown::NoCommands) => {}
                Ok(Shown::Needing(what)) => skipped.entry(what).or_default().push(place),
                Ok(Shown::Commands) => {
                    run += 1;
                    let complaint = follow(desk.get_or_insert_with(desk_of_a_reader).path(), &text);
                    failed.extend(complaint.map(|complaint| format!("{place}: {complaint}")));
                }
            }
        }
    }
    for (what, places) in &skipped {
        let why = NEEDS.iter().find(|(name, _)| name == what).map_or("", |(_, why)| why);
        eprintln!("SKIPPED, for each needs {why}: {} marked {what}: {}", places.len(), places.join(", "));
    }
    assert!(failed.is_empty(), "{} of {run} blocks failed\n{}", failed.len(), failed.join("\n"));
    assert!(run > 25, "{run} blocks were run; were the others marked?");
}

/// A folder to work in, as someone has it who follows a chapter.
fn desk_of_a_reader() -> tempfile::TempDir {
    let desk = tempfile::tempdir().expect("a folder");
    let bin = desk.path().join("bin");
    fs::create_dir(&bin).expect("a folder");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_rectify"), bin.join("rectify")).expect("a link");
    let work = desk.path().join("work");
    fs::create_dir(&work).expect("a folder");
    let copied = Command::new("cp").arg("-R").arg(root().join("static")).arg(&work).status().expect("cp starts");
    assert!(copied.success(), "static/ is copied");
    desk
}

/// Runs commands as a shell does that stops at the first failure; what went wrong, if anything did.
fn follow(desk: &Path, commands: &str) -> Option<String> {
    let path = env::var_os("PATH").unwrap_or_default();
    let path = env::join_paths([desk.join("bin")].into_iter().chain(env::split_paths(&path))).expect("a path");
    let mut shell = Command::new("sh");
    shell.args(["-e", "-c", commands]).current_dir(desk.join("work")).env("PATH", path).stdin(Stdio::null());
    // Whatever whoever runs the tests has set would be another reader's.
    for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("RECTIFY_")) {
        shell.env_remove(name);
    }
    let output = shell.env("HF_HUB_OFFLINE", "1").output().expect("sh starts");
    let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    (!output.status.success()).then(|| format!("{}\n{commands}--- said\n{said}", output.status))
}

#[derive(Debug, PartialEq)]
enum Shown {
    NoCommands,
    Commands,
    /// One of [`NEEDS`].
    Needing(&'static str),
}

/// What a block shows, by what stands behind its fence.
fn need(info: &str) -> Result<Shown, String> {
    let (language, mark) = info.split_once(',').map_or((info, None), |(language, mark)| (language, Some(mark)));
    match (language, mark) {
        ("sh", None) => Ok(Shown::Commands),
        ("sh", Some(mark)) => {
            let known = NEEDS.iter().find(|(name, _)| *name == mark);
            let names = || NEEDS.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
            known.map(|(name, _)| Shown::Needing(name)).ok_or_else(|| format!("{mark:?} is none of {}", names()))
        }
        ("" | "bash" | "shell" | "console", _) => {
            Err("say what it is: sh for commands, text for what they print".into())
        }
        _ => Ok(Shown::NoCommands),
    }
}

#[test]
fn a_mark_that_nobody_knows_is_refused() {
    assert_eq!(need("sh"), Ok(Shown::Commands));
    assert_eq!(need("sh,network"), Ok(Shown::Needing("network")));
    assert_eq!(need("text"), Ok(Shown::NoCommands));
    for info in ["sh,netwrok", "sh,", "sh,network,slow", "", "bash"] {
        assert!(need(info).is_err(), "{info:?}");
    }
}

/// Every link between the documents leads to a file that is there and, behind a `#`, to one of its headings.
#[test]
fn every_link_of_the_readme_and_the_book_leads_somewhere() {
    let mut wrong = Vec::new();
    for file in documents().into_iter().chain(["docs/SUMMARY.md", "CONTRIBUTING.md"].map(String::from)) {
        let folder = Path::new(&file).parent().expect("a file has a folder").to_owned();
        for link in prose(&file).split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.starts_with("http") {
                continue;
            }
            let (target, heading) = link.split_once('#').map_or((link, None), |(target, at)| (target, Some(at)));
            let target = if target.is_empty() { PathBuf::from(&file) } else { folder.join(target) };
            let there = root().join(&target).exists();
            let said = |heading: &str| anchors(&target.display().to_string()).iter().any(|anchor| anchor == heading);
            if !there || heading.is_some_and(|heading| !said(heading)) {
                wrong.push(format!("{file}: {link}"));
            }
        }
    }
    assert!(wrong.is_empty(), "these lead nowhere:\n{}", wrong.join("\n"));
}

#[test]
fn every_document_is_a_chapter() {
    let chapters = documents();
    let docs = fs::read_dir(root().join("docs")).expect("docs/").map(|entry| entry.expect("an entry").file_name());
    let pages = docs.map(|name| name.to_string_lossy().into_owned()).filter(|name| name.ends_with(".md"));
    let lost: Vec<String> =
        pages.filter(|name| name != "SUMMARY.md" && !chapters.contains(&format!("docs/{name}"))).collect();
    assert!(lost.is_empty(), "docs/SUMMARY.md does not name {}", lost.join(", "));
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(file: &str) -> String {
    fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// The README and the book's chapters, in their order.
fn documents() -> Vec<String> {
    let summary = read("docs/SUMMARY.md");
    let chapters = summary.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    ["README.md".to_owned()].into_iter().chain(chapters.map(|chapter| format!("docs/{chapter}"))).collect()
}

/// A fenced block.
struct Block {
    /// Where its fence stands, counted from 1.
    line: usize,
    /// What stands behind the fence.
    info: String,
    text: String,
}

fn blocks(file: &str) -> Vec<Block> {
    let (mut blocks, mut open) = (Vec::new(), None::<Block>);
    for (line, content) in (1..).zip(read(file).lines()) {
        let fence = content.strip_prefix("```");
        match open.take() {
            None => open = fence.map(|info| Block { line, info: info.trim().to_owned(), text: String::new() }),
            Some(block) if fence.is_some() => blocks.push(block),
            Some(block) => open = Some(Block { text: block.text + content + "\n", ..block }),
        }
    }
    assert!(open.is_none(), "{file}: a block is not closed");
    blocks
}

/// A document without its blocks.
fn prose(file: &str) -> String {
    read(file).split("\n```").step_by(2).collect::<Vec<_>>().join("\n")
}

/// What the headings of a document are called in addresses.
fn anchors(file: &str) -> Vec<String> {
    let prose = prose(file);
    let headings = prose.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    let kept = |c: char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
    let named =
        |heading: &str| heading.to_lowercase().chars().filter(|c| kept(*c)).collect::<String>().replace(' ', "-");
    headings.map(named).collect()
}
