//! What comes with the program, wherever it is installed: the bundled models, the page.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

/// Where a folder that comes with the program may lie: at `here`, beside the program as `name`, or where installers put
/// data, in `../share/rectify/name`.
pub fn places(here: &str, name: &str) -> Vec<PathBuf> {
    let mut places = vec![PathBuf::from(here)];
    // Links are followed: what comes with the program lies beside the program itself.
    let program = env::current_exe().and_then(fs::canonicalize).unwrap_or_default();
    if let Some(folder) = program.parent() {
        places.push(folder.join(name));
        places.extend(folder.parent().map(|prefix| prefix.join("share/rectify").join(name)));
    }
    places
}

/// The first of these folders that holds the file `mark`.
///
/// # Errors
///
/// What was looked for, and where, when none does.
pub fn first_with(mark: &str, places: &[PathBuf]) -> Result<PathBuf, String> {
    let names = |places: &[PathBuf]| places.iter().map(|place| shown(place)).collect::<Vec<_>>().join(", ");
    let found = places.iter().find(|place| place.join(mark).is_file());
    found.cloned().ok_or_else(|| format!("no {mark} in any of {}", names(places)))
}

fn shown(place: &Path) -> String {
    if place.is_absolute() { place.display().to_string() } else { format!("./{}", place.display()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_place_that_has_it_is_taken_and_a_failure_lists_them_all() {
        let here = tempfile::tempdir().unwrap();
        let places = ["a", "b", "c"].map(|name| here.path().join(name));
        for place in &places[1..] {
            fs::create_dir(place).unwrap();
            fs::write(place.join("mark"), "").unwrap();
        }
        assert_eq!(first_with("mark", &places), Ok(places[1].clone()));
        let problem = first_with("none", &places).unwrap_err();
        for place in &places {
            assert!(problem.contains(&place.display().to_string()), "{problem}");
        }
        assert_eq!(first_with("none", &["dist".into()]).unwrap_err(), "no none in any of ./dist");
    }

    #[test]
    fn beside_the_program_comes_before_where_data_is_installed() {
        let [here, beside, shared] = places("dist", "site").try_into().unwrap();
        let folder = env::current_exe().unwrap().canonicalize().unwrap().parent().unwrap().to_owned();
        assert_eq!((here, beside), (PathBuf::from("dist"), folder.join("site")));
        assert_eq!(shared, folder.parent().unwrap().join("share/rectify/site"));
    }
}
