//! Rows of sweeps on this machine, for the page to draw.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use axum::{
    Json,
    extract::{Path as UrlPath, Request, State},
    response::Response,
};
use rectify_protocol::RowsFile;

use super::{
    AppState,
    error::Refusal,
    jobs::{list_rows, one_of},
};
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

/// `GET /api/sweeps/{name}`: its files of rows.
pub(super) async fn files(
    State(state): State<AppState>,
    UrlPath(name): UrlPath<String>,
) -> Result<Json<Vec<RowsFile>>, Refusal> {
    let listed = tokio::task::spawn_blocking(move || Ok(list_rows(&folder(&state, &name)?)?));
    listed.await.map_err(|error| Refusal::from(internal(error.to_string())))?.map(Json)
}

/// `GET /api/sweeps/{name}/{file}`: rows as they are, by range if you like.
pub(super) async fn file(
    State(state): State<AppState>,
    UrlPath((name, file)): UrlPath<(String, String)>,
    request: Request,
) -> Result<Response, Refusal> {
    one_of(folder(&state, &name)?, file, request).await
}

/// The folder of a sweep. Only what is listed can be read: no name leads out of the folder.
fn folder(state: &AppState, name: &str) -> Result<PathBuf, Refusal> {
    let root = &state.0.settings.sweeps;
    if folders(root).unwrap_or_default().iter().all(|listed| listed != name) {
        return Err(Refusal::not_found(format!("there is no sweep {name:?}")));
    }
    Ok(root.join(name))
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
