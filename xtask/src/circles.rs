//! Whether files of one crate refer to each other in a circle: what cannot be read before something else is read.
//!
//! A file refers to another when it names something that is defined there, by whatever path. A re-export (`pub use`) is
//! no reference but a signpost: whoever names what it shows refers to where it points.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use anyhow::{Context, Result};
use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens;
use syn::{Item, UseTree, Visibility};

/// A module, as the names that lead to it.
type Module = Vec<String>;

/// A crate's files.
#[derive(Default)]
struct Files {
    /// What each file names, the first word still relative: `crate`, `super`, a name of its own.
    named: BTreeMap<Module, Vec<Vec<String>>>,
    /// Where a name that a file brings in stands: the module, the name, and the path.
    shown: BTreeMap<Module, Vec<String>>,
}

/// The circles among a crate's files: the files of each.
///
/// # Errors
///
/// When a file cannot be read or is no Rust.
pub fn of_crate(source: &Path) -> Result<Vec<String>> {
    let mut files = Files::default();
    read_folder(source, &mut Vec::new(), &mut files)?;
    Ok(circles(&files.references()).into_iter().map(|circle| circle.join(", ")).collect())
}

fn read_folder(folder: &Path, at: &mut Module, files: &mut Files) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let path = entry?.path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            at.push(name);
            read_folder(&path, at, files)?;
            at.pop();
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let is_folder_s = matches!(name.as_str(), "mod" | "lib" | "main");
            let module: Module = at.iter().cloned().chain((!is_folder_s).then_some(name)).collect();
            let text = fs::read_to_string(&path)?;
            files.read(module, &text).with_context(|| format!("cannot parse {}", path.display()))?;
        }
    }
    Ok(())
}

impl Files {
    fn read(&mut self, module: Module, text: &str) -> Result<()> {
        let mut named = Vec::new();
        for item in syn::parse_file(text)?.items {
            match item {
                Item::Use(item) => {
                    let mut leaves = Vec::new();
                    flatten(&item.tree, &mut Vec::new(), &mut leaves);
                    for (path, name) in leaves {
                        let place = module.iter().cloned().chain([name]).collect();
                        if matches!(item.vis, Visibility::Inherited) {
                            named.push(path.clone());
                        }
                        self.shown.insert(place, path);
                    }
                }
                Item::Mod(item) if item.content.is_none() => {}
                Item::Mod(item) if item.attrs.iter().any(|attribute| attribute.path().is_ident("cfg")) => {}
                other => paths(other.to_token_stream(), &mut named),
            }
        }
        self.named.insert(module, named);
        Ok(())
    }

    /// What each file refers to, itself left out.
    fn references(&self) -> BTreeMap<&Module, BTreeSet<&Module>> {
        let of = |module: &Module, named: &[Vec<String>]| {
            named.iter().filter_map(|path| self.place(module, path, 0)).filter(|place| *place != module).collect()
        };
        self.named.iter().map(|(module, named)| (module, of(module, named))).collect()
    }

    /// The file that defines what `path` names in `module`; `None` where that is another crate's.
    fn place(&self, module: &Module, path: &[String], depth: usize) -> Option<&Module> {
        let first = path.first()?;
        // `pub(super)` and `&self` name nothing.
        if path.len() == 1 && matches!(first.as_str(), "crate" | "super" | "self") {
            return None;
        }
        let absolute: Module = match first.as_str() {
            "crate" => path[1..].to_vec(),
            "self" => module.iter().chain(&path[1..]).cloned().collect(),
            "super" => {
                let ups = path.iter().take_while(|part| *part == "super").count();
                let kept = module.len().checked_sub(ups)?;
                module[..kept].iter().chain(&path[ups..]).cloned().collect()
            }
            _ => {
                let own: Module = module.iter().cloned().chain([first.clone()]).collect();
                if !self.named.contains_key(&own) && !self.shown.contains_key(&own) {
                    return None;
                }
                module.iter().chain(path).cloned().collect()
            }
        };
        // The first name on the way that is a signpost leads elsewhere.
        for length in 1..=absolute.len() {
            if let Some(target) = self.shown.get(&absolute[..length])
                && !self.named.contains_key(&absolute[..length])
                && depth < 10
            {
                let from = absolute[..length - 1].to_vec();
                let on: Vec<String> = target.iter().chain(&absolute[length..]).cloned().collect();
                return self.place(&from, &on, depth + 1);
            }
        }
        (0..=absolute.len())
            .rev()
            .find_map(|length| self.named.get_key_value(&absolute[..length]))
            .map(|(place, _)| place)
    }
}

/// The leaves of a `use`: the whole path, and the name it is known by here.
fn flatten(tree: &UseTree, before: &mut Vec<String>, leaves: &mut Vec<(Vec<String>, String)>) {
    let mut leaf = |before: &[String], name: String, known: String| match name.as_str() {
        "self" => leaves.push((before.to_vec(), before.last().cloned().unwrap_or_default())),
        _ => leaves.push((before.iter().cloned().chain([name]).collect(), known)),
    };
    match tree {
        UseTree::Name(name) => leaf(before, name.ident.to_string(), name.ident.to_string()),
        UseTree::Rename(rename) => leaf(before, rename.ident.to_string(), rename.rename.to_string()),
        UseTree::Glob(_) => leaf(before, "*".into(), "*".into()),
        UseTree::Path(path) => {
            before.push(path.ident.to_string());
            flatten(&path.tree, before, leaves);
            before.pop();
        }
        UseTree::Group(group) => group.items.iter().for_each(|tree| flatten(tree, before, leaves)),
    }
}

/// Every path in some code, and every name by itself, macros' arguments included.
fn paths(code: TokenStream, named: &mut Vec<Vec<String>>) {
    let (mut path, mut colons, mut after_dot) = (Vec::new(), 0, false);
    for token in code {
        match token {
            TokenTree::Ident(ident) => {
                if colons != 2 {
                    named.extend((!path.is_empty()).then(|| std::mem::take(&mut path)));
                }
                // A field or method is not a name that could be a module's.
                if !after_dot {
                    path.push(ident.to_string());
                }
                colons = 0;
            }
            TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
            other => {
                named.extend((!path.is_empty()).then(|| std::mem::take(&mut path)));
                colons = 0;
                after_dot = matches!(&other, TokenTree::Punct(punct) if punct.as_char() == '.');
                if let TokenTree::Group(group) = other {
                    paths(group.stream(), named);
                }
                continue;
            }
        }
        after_dot = false;
    }
    named.extend((!path.is_empty()).then_some(path));
}

/// The circles of a graph: groups of more than one from each of which the others can be reached.
fn circles(graph: &BTreeMap<&Module, BTreeSet<&Module>>) -> Vec<Vec<String>> {
    let reached: BTreeMap<&Module, BTreeSet<&Module>> = graph.keys().map(|from| (*from, reach(graph, from))).collect();
    let mut circles: BTreeSet<Vec<String>> = BTreeSet::new();
    for (from, there) in &reached {
        let circle: Vec<String> = there
            .iter()
            .filter(|to| reached.get(**to).is_some_and(|back| back.contains(from)))
            .map(|to| name(to))
            .collect();
        if circle.len() > 1 {
            circles.insert(circle);
        }
    }
    circles.into_iter().collect()
}

fn reach<'a>(graph: &BTreeMap<&'a Module, BTreeSet<&'a Module>>, from: &'a Module) -> BTreeSet<&'a Module> {
    let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
    while let Some(at) = open.pop() {
        for next in graph.get(at).into_iter().flatten() {
            if seen.insert(*next) {
                open.push(next);
            }
        }
    }
    seen
}

fn name(module: &Module) -> String {
    if module.is_empty() { "the crate's root".into() } else { module.join("::") }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The circles among files, each with its module's path and its text.
    #[track_caller]
    fn check(files: &[(&str, &str)], expected: &[&str]) {
        let mut crate_ = Files::default();
        for (path, text) in files {
            let module = path.split("::").filter(|part| !part.is_empty()).map(str::to_owned).collect();
            crate_.read(module, text).unwrap();
        }
        let found: Vec<String> = circles(&crate_.references()).into_iter().map(|circle| circle.join(", ")).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_circle_is_found_by_whatever_path_it_goes() {
        check(&[("", "mod a; mod b;"), ("a", "use crate::b::B;"), ("b", "fn f() { super::a::g(); }")], &["a, b"]);
        check(
            &[("", "mod a; mod b;"), ("a", "use crate::b::B;"), ("b", "fn f() { panic!(\"{}\", crate::a::N) }")],
            &["a, b"],
        );
        check(&[("", "mod a; mod b;"), ("a", "use crate::b::B;"), ("b", "pub struct B;")], &[]);
        check(
            &[("", "mod m;"), ("m", "mod c; use c::f; fn g() { f() }"), ("m::c", "use super::g; pub fn f() { g() }")],
            &["m, m::c"],
        );
    }

    #[test]
    fn a_signpost_is_no_reference() {
        let files = [
            ("", "mod m;"),
            ("m", "mod a; mod b; pub use a::A; pub use b::B;"),
            ("m::a", "pub struct A;"),
            ("m::b", "use super::A; pub struct B(A);"),
        ];
        check(&files, &[]);
        check(&[("", "mod a; fn f() { a::g() }"), ("a", "pub(crate) fn g() {} struct S(pub(super) u8);")], &[]);
        check(&[files[0], files[1], ("m::a", "use crate::m::B; pub struct A(B);"), files[3]], &["m::a, m::b"]);
    }

    #[test]
    fn tests_may_look_anywhere() {
        let tests = "pub struct B; #[cfg(test)] mod tests { use crate::a::g; }";
        check(&[("", "mod a; mod b;"), ("a", "use crate::b::B; pub fn g() {}"), ("b", tests)], &[]);
        check(&[("", "mod a; mod b;"), ("a", "use crate::b::B;"), ("b", "pub struct B; fn f(x: X) { x.a.b() }")], &[]);
    }
}
