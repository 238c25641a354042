//! Which crate may depend on which, and that files of one do not depend on each other in a circle. Adding a line here is
//! a decision, so it is its own commit.

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{
    Args, circles,
    shell::{cargo, root, say},
};

/// Each of our crates and those of ours that it may depend on.
const OURS: &[(&str, &[&str])] = &[
    ("rectify-protocol", &[]),
    ("rectify-figures", &["rectify-protocol"]),
    ("rectify-core", &["rectify-protocol"]),
    ("rectify-frontend", &["rectify-protocol", "rectify-figures"]),
    ("rectify-worker", &["rectify-protocol", "rectify-core"]),
    ("rectify-server", &["rectify-protocol", "rectify-core", "rectify-figures"]),
    ("rectify-tests", &["rectify-protocol", "rectify-core", "rectify-server", "rectify-figures"]),
    ("rectify-parity", &["rectify-protocol", "rectify-core"]),
    ("xtask", &[]),
];

/// Crates whose files can be read one after the other: none depends on one that depends on it.
const OPEN: &[&str] = &["core/src", "protocol/src", "figures/src"];

/// Others' crates that one of ours must not name, and why.
const NOT: &[(&str, &[&str], &str)] = &[
    (
        "rectify-frontend",
        &["burn", "tokenizers", "safetensors"],
        "the page draws numbers; only a worker or server computes them",
    ),
    (
        "rectify-protocol",
        &["burn", "anyhow", "tokio", "wasm-bindgen"],
        "messages are plain values that every side can afford",
    ),
    (
        "rectify-core",
        &["anyhow", "tokio", "axum", "wasm-bindgen", "web-sys", "js-sys"],
        "core knows no server and no browser",
    ),
];

/// Devices that burn can compute on: the leaves choose theirs, core is handed one.
const DEVICES: &[&str] = &["flex", "wgpu", "webgpu", "vulkan", "metal", "cuda", "rocm", "cpu", "ndarray", "tch"];

/// `cargo xtask edges`.
pub fn edges(args: &mut Args) -> Result<()> {
    args.done()?;
    check()
}

/// Compares the tables with what cargo says.
pub fn check() -> Result<()> {
    let output = cargo().args(["metadata", "--no-deps", "--format-version", "1"]).output()?;
    if !output.status.success() {
        bail!("cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let wrong = complaints(&serde_json::from_slice(&output.stdout)?)?;
    if !wrong.is_empty() {
        bail!(
            "dependencies that ARCHITECTURE.md does not have (the tables are in xtask/src/edges.rs):\n  {}",
            wrong.join("\n  ")
        );
    }
    say("edges: every dependency between crates is one that is allowed");
    let mut circles = Vec::new();
    for source in OPEN {
        circles
            .extend(circles::of_crate(&root().join(source))?.into_iter().map(|circle| format!("{source}: {circle}")));
    }
    if !circles.is_empty() {
        bail!(
            "files that depend on each other in a circle; move what they share to a file of its own:\n  {}",
            circles.join("\n  ")
        );
    }
    say(format!("edges: no circle among the files of {}", list(OPEN)));
    Ok(())
}

fn complaints(metadata: &Value) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    let packages = metadata["packages"].as_array().context("cargo metadata lists no packages")?;
    for package in packages {
        let name = package["name"].as_str().context("a package without a name")?;
        let Some((_, allowed)) = OURS.iter().find(|(ours, _)| *ours == name) else {
            wrong.push(format!("{name} is not in the table: add it with what it may depend on"));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let on = dependency["name"].as_str().unwrap_or_default();
            if OURS.iter().any(|(ours, _)| *ours == on) && !allowed.contains(&on) {
                wrong.push(format!("{name} → {on}: {name} may depend on {}", list(allowed)));
            }
            for (_, others, why) in NOT.iter().filter(|(ours, ..)| *ours == name) {
                if others.contains(&on) {
                    wrong.push(format!("{name} → {on}: {why}"));
                }
            }
            let for_tests = dependency["kind"] == "dev";
            if name == "rectify-core" && on == "burn" && !for_tests {
                let features = dependency["features"].as_array().into_iter().flatten().filter_map(Value::as_str);
                for device in features.filter(|feature| DEVICES.contains(feature)) {
                    wrong.push(format!(
                        "{name} → burn/{device}: core is handed a device; a leaf's Cargo.toml chooses it"
                    ));
                }
            }
        }
    }
    for (name, _) in OURS {
        if !packages.iter().any(|package| package["name"] == *name) {
            wrong.push(format!("{name} is in the table but not in the workspace"));
        }
    }
    Ok(wrong)
}

fn list(names: &[&str]) -> String {
    if names.is_empty() { "none of ours".into() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A workspace in which everything is as it should be but for one dependency of `package`.
    #[track_caller]
    fn check(package: &str, dependency: Value, complaint: Option<&str>) {
        let packages = OURS.iter().map(|(name, _)| {
            let dependencies = if *name == package { vec![dependency.clone()] } else { vec![] };
            json!({ "name": name, "dependencies": dependencies })
        });
        let wrong = complaints(&json!({ "packages": packages.collect::<Vec<_>>() })).unwrap();
        match complaint {
            None => assert!(wrong.is_empty(), "{wrong:?}"),
            Some(part) => assert!(wrong.len() == 1 && wrong[0].contains(part), "{wrong:?}"),
        }
    }

    #[test]
    fn a_dependency_is_allowed_or_explained() {
        check("rectify-core", json!({ "name": "rectify-protocol" }), None);
        check("rectify-frontend", json!({ "name": "rectify-core" }), Some("may depend on rectify-protocol"));
        check("rectify-frontend", json!({ "name": "burn" }), Some("the page draws numbers"));
        check("rectify-core", json!({ "name": "burn", "features": ["std", "flex"] }), Some("burn/flex"));
        check("rectify-core", json!({ "name": "burn", "features": ["flex"], "kind": "dev" }), None);
    }
}
