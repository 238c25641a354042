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
    interface::{FileName, Refused, SweepName},
    jobs::{one_of, sizes},
};
use crate::{
    io::{cannot_read, internal},
    sweep::rows,
};

/// The names of the folders with rows.
#[utoipa::path(get, path = "/api/sweeps", tag = "sweeps", responses((status = 200, body = Vec<String>), Refused))]
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

/// A sweep's files of rows.
#[utoipa::path(get, path = "/api/sweeps/{name}", tag = "sweeps", params(SweepName), responses((status = 200, body = Vec<RowsFile>), Refused))]
pub(super) async fn files(
    State(state): State<AppState>,
    UrlPath(name): UrlPath<String>,
) -> Result<Json<Vec<RowsFile>>, Refusal> {
    Ok(Json(sizes(&listed(state, name).await?)))
}

/// Rows as they are, by range if you like.
#[utoipa::path(
    get, path = "/api/sweeps/{name}/{file}", tag = "sweeps", params(SweepName, FileName),
    responses((status = 200, body = String, content_type = "application/jsonl"),
        (status = 206, description = "The part that was asked for"), (status = 304, description = "It is as it was"), Refused)
)]
pub(super) async fn file(
    State(state): State<AppState>,
    UrlPath((name, file)): UrlPath<(String, String)>,
    request: Request,
) -> Result<Response, Refusal> {
    one_of(&listed(state, name).await?, &file, request).await
}

async fn listed(state: AppState, name: String) -> Result<Vec<PathBuf>, Refusal> {
    let listed = tokio::task::spawn_blocking(move || {
        let folder = folder(&state, &name)?;
        Ok(rows::files(&folder).map_err(|error| cannot_read(&folder, &error))?)
    });
    listed.await.map_err(|error| Refusal::from(internal(error.to_string())))?
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
