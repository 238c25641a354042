//! Rows of sweeps on this machine, for the page to draw.

use std::{fs, io, path::Path};

use axum::{
    Json,
    extract::{Path as UrlPath, State},
};

use super::{AppState, error::Refusal};
use crate::{
    io::{cannot_read, internal},
    sweep::rows,
};

/// `GET /api/sweeps`: the names of the folders with rows.
pub(super) async fn list(State(state): State<AppState>) -> Result<Json<Vec<String>>, Refusal> {
    let root = &state.0.settings.sweeps;
    let mut names = match folders(root) {
        Ok(names) => names,
        // Nobody has swept yet.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(cannot_read(root, &error).into()),
    };
    names.sort();
    Ok(Json(names))
}

/// `GET /api/sweeps/{name}`: its files of rows, names and texts.
pub(super) async fn rows(
    State(state): State<AppState>,
    UrlPath(name): UrlPath<String>,
) -> Result<Json<Vec<(String, String)>>, Refusal> {
    let root = state.0.settings.sweeps.clone();
    let read = move || {
        // Only what is listed can be read: no name leads out of the folder.
        if !folders(&root).unwrap_or_default().contains(&name) {
            return Err(Refusal::not_found(format!("there is no sweep {name:?}")));
        }
        let folder = root.join(&name);
        let mut files = Vec::new();
        for path in rows::files(&folder).map_err(|error| cannot_read(&folder, &error))? {
            let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            files.push((file, rows::whole_lines(&path)?));
        }
        Ok(Json(files))
    };
    // Rows may be many.
    tokio::task::spawn_blocking(read).await.map_err(|error| Refusal::from(internal(error.to_string())))?
}

/// The folders with rows within `root`. A link that leads out of it is none.
fn folders(root: &Path) -> io::Result<Vec<String>> {
    let inside = root.canonicalize()?;
    let within = |path: &Path| path.canonicalize().is_ok_and(|path| path.starts_with(&inside));
    let has_rows = |entry: &fs::DirEntry| {
        let files = rows::files(&entry.path()).unwrap_or_default();
        !files.is_empty() && files.iter().all(|file| within(file))
    };
    let entries = fs::read_dir(root)?.filter_map(Result::ok).filter(has_rows);
    Ok(entries.filter_map(|entry| entry.file_name().into_string().ok()).collect())
}
