//! What must stay true and no compiler checks. Each rule says where it looks, what it forbids, and why.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{
    Args,
    shell::{output_of, root, say},
};

/// A line of text that must not be.
struct Rule {
    /// Files it is about, by the beginnings of their paths, and those exempt.
    within: &'static [&'static str],
    except: &'static [&'static str],
    /// Any of these in a line breaks the rule.
    forbids: &'static [&'static str],
    why: &'static str,
}

const RULES: &[Rule] = &[
    Rule {
        within: &["core/src/"],
        except: &[],
        forbids: &["cfg(target", "cfg!(target"],
        why: "core does not know where it runs; what differs is a value or a trait at the edges",
    },
    Rule {
        within: &["core/src/"],
        except: &[],
        forbids: &["derive(Serialize", ", Serialize", "impl Serialize"],
        why: "only protocol's types leave the program, so a core type can change without breaking a file or a page",
    },
    Rule {
        within: &["core/src/", "native-server/src/", "frontend/worker/src/"],
        except: &[],
        forbids: &["&mut Model"],
        why: "a model is a value: editing returns a new one, and undo is keeping the old one",
    },
    Rule {
        within: &["core/src/", "native-server/src/", "frontend/"],
        except: &["core/src/model/gpt2.rs", "core/src/model/gptj.rs", "core/src/model/llama.rs"],
        forbids: &[
            "mlp.c_proj",
            "mlp.c_fc",
            "attn.c_attn",
            "mlp.down_proj",
            "mlp.up_proj",
            "self_attn.",
            "transformer.h.",
        ],
        why: "a place in a model is a Site or WeightSite; a checkpoint's names are known to its architecture's file alone",
    },
    Rule {
        within: &["tests/parity/"],
        except: &["tests/parity/real.rs"],
        forbids: &["#[test]"],
        why: "in a browser nobody would miss this test; #[golden::test] runs natively and there",
    },
    Rule {
        within: &[""],
        except: &["xtask/src/tidy.rs", "Cargo.lock"],
        forbids: &["/root/", "/home/", "/Users/", "/work/", "TODO", "FIXME", "XXX"],
        why: "a path of one person's machine, or a note to oneself, means nothing to a reader",
    },
];

/// Files of core longer than [`LONGEST`], each with the reason.
const LONG: &[(&str, &str)] = &[];
const LONGEST: usize = 600;

/// Files that are data, not text we wrote.
const DATA: &[&str] = &["static/", "tests/golden/", "docs/papers/"];

/// `cargo xtask tidy`.
pub fn tidy(args: &mut Args) -> Result<()> {
    args.done()?;
    check()
}

/// Applies every rule to every file that is in the repository or about to be.
pub fn check() -> Result<()> {
    let files = files()?;
    let mut wrong = Vec::new();
    for path in files.iter().filter(|path| !DATA.iter().any(|data| path.starts_with(data))) {
        let Ok(text) = fs::read_to_string(root().join(path)) else { continue };
        complain(path, &text, &mut wrong);
        if path.ends_with(".md") {
            wrong.extend(missing_tests(path, &text, &|file| fs::read_to_string(root().join(file)).ok()));
        }
    }
    wrong.extend(unlisted_models(&files)?);
    if !wrong.is_empty() {
        bail!("the rules are in xtask/src/tidy.rs:\n  {}", wrong.join("\n  "));
    }
    say("tidy: nothing to complain about");
    Ok(())
}

/// Paths in the repository, with `/`.
fn files() -> Result<Vec<String>> {
    let root = root();
    let at = root.to_str().context("the repository's path is not UTF-8")?;
    let listed = output_of("git", &["-C", at, "ls-files", "--cached", "--others", "--exclude-standard"])
        .context("git does not list the repository's files")?;
    Ok(listed.lines().map(str::to_owned).collect())
}

fn complain(path: &str, text: &str, wrong: &mut Vec<String>) {
    for rule in RULES {
        let about = rule.within.iter().any(|start| path.starts_with(start));
        if !about || rule.except.contains(&path) {
            continue;
        }
        for (number, line) in (1..).zip(text.lines()) {
            if let Some(found) = rule.forbids.iter().find(|forbidden| line.contains(*forbidden)) {
                wrong.push(format!("{path}:{number}: {found:?}: {}", rule.why));
            }
        }
    }
    let length = text.lines().count();
    if path.starts_with("core/src/") && length > LONGEST && !LONG.iter().any(|(long, _)| *long == path) {
        wrong.push(format!(
            "{path}: {length} lines, and more than {LONGEST} no longer tell one story: divide it, or list it with a reason"
        ));
    }
}

/// Tests that a document names as `path/to/file.rs::name` and that are not there.
fn missing_tests(path: &str, text: &str, read: &dyn Fn(&str) -> Option<String>) -> Vec<String> {
    let named = text.split('`').skip(1).step_by(2).filter_map(|span| span.split_once(".rs::"));
    let is_missing = |(file, name): &(&str, &str)| {
        !read(&format!("{file}.rs")).is_some_and(|source| source.contains(&format!("fn {name}(")))
    };
    named.filter(is_missing).map(|(file, name)| format!("{path}: there is no test {file}.rs::{name}")).collect()
}

/// Files under `static/models` that `static/models.json` does not name, and the other way round.
fn unlisted_models(files: &[String]) -> Result<Vec<String>> {
    let catalog = Path::new("static/models.json");
    let present: Vec<&String> = files.iter().filter(|file| file.starts_with("static/models/")).collect();
    if present.is_empty() && !root().join(catalog).is_file() {
        return Ok(Vec::new());
    }
    let Ok(text) = fs::read_to_string(root().join(catalog)) else {
        return Ok(vec!["static/models.json: not there, so nobody finds the models in static/models".into()]);
    };
    let json: Value = serde_json::from_str(&text).context("static/models.json is not JSON")?;
    let mut listed = Vec::new();
    for model in json["models"].as_array().into_iter().flatten() {
        let folder = Path::new("static").join(model["folder"].as_str().unwrap_or_default());
        for file in model["files"].as_array().into_iter().flatten() {
            listed.push((folder.join(file["path"].as_str().unwrap_or_default()), file["size"].as_u64()));
        }
    }
    let unlisted = present
        .iter()
        .filter(|file| !listed.iter().any(|(path, _)| path == Path::new(file)))
        .map(|file| format!("{file}: not in models.json, so a page would not fetch it"));
    let size = |path: &PathBuf| fs::metadata(root().join(path)).ok().map(|data| data.len());
    let wrong_size = listed.iter().filter(|(path, bytes)| size(path) != *bytes).map(|(path, bytes)| {
        format!("{}: models.json says {bytes:?} bytes, the folder has {:?}", path.display(), size(path))
    });
    Ok(unlisted.chain(wrong_size).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(path: &str, line: &str, complaint: Option<&str>) {
        let mut wrong = Vec::new();
        complain(path, line, &mut wrong);
        match complaint {
            None => assert!(wrong.is_empty(), "{wrong:?}"),
            Some(part) => assert!(wrong.len() == 1 && wrong[0].contains(part), "{wrong:?}"),
        }
    }

    #[test]
    fn a_line_that_breaks_a_rule_is_named_with_the_reason() {
        check("core/src/lib.rs", "#[cfg(target_arch = \"wasm32\")]", Some("does not know where it runs"));
        check("frontend/worker/src/main.rs", "#[cfg(target_arch = \"wasm32\")]", None);
        check("core/src/edit/rome.rs", "fn apply(model: &mut Model)", Some("a model is a value"));
        check("core/src/edit/rome.rs", "\"h.3.mlp.c_proj.weight\"", Some("Site or WeightSite"));
        check("core/src/model/gpt2.rs", "\"h.3.mlp.c_proj.weight\"", None);
        check("tests/parity/rome.rs", "#[test]", Some("#[golden::test]"));
        check("tests/parity/rome.rs", "#[golden::test]", None);
        check("README.md", "cd /home/me/rectify", Some("one person's machine"));
    }

    #[test]
    fn a_long_file_of_core_is_divided_or_explained() {
        check("core/src/new.rs", &"\n".repeat(LONGEST + 1), Some("no longer tell one story"));
        check("native-server/src/new.rs", &"\n".repeat(LONGEST + 1), None);
    }

    #[test]
    fn a_test_that_a_document_names_is_there() {
        let read = |file: &str| (file == "a/b.rs").then(|| "    fn holds() {}\n".to_owned());
        let text = "| x | `a/b.rs::holds`, `a/b.rs::broken`, `c.rs::holds`, `cargo xtask api` |";
        assert_eq!(missing_tests("d.md", text, &read).len(), 2);
    }
}
