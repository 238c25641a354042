//! `rectify report`.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use rectify_figures::{Study, Sweep, draw, figure, html, table};
use rectify_protocol::Failure;

use crate::{io, sweep::read_folder};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A sweep's folder, or one that holds several
    folder: PathBuf,
    /// The title at the top
    #[arg(long)]
    title: Option<String>,
}

pub(super) fn run(args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    write(&args.folder, args.title.as_deref(), out)
}

/// Everything that rows in a folder and the folders within say, as `report.html`, `report.csv`, `report.json` and pictures
/// in `figures/`, beside them.
///
/// # Errors
///
/// When there are no rows, or something cannot be read or written.
pub(super) fn write(folder: &Path, title: Option<&str>, out: &mut dyn Write) -> Result<(), Failure> {
    let folder = &fs::canonicalize(folder).map_err(|error| io::cannot_read(folder, &error))?;
    let sweeps = sweeps(folder)?;
    sweeps.iter().flat_map(|sweep| &sweep.problems).for_each(|problem| io::warn(problem));
    let studies: Vec<Study> = sweeps.iter().filter_map(Study::of).collect();
    if studies.is_empty() {
        return Err(Failure::bad_input(format!(
            "{} has no rows of a sweep, nor has a folder in it; `rectify sweep SPEC.toml --out {0}` makes them",
            folder.display()
        )));
    }
    let name = folder.file_name().unwrap_or(folder.as_os_str()).to_string_lossy();
    let document = html::document(title.unwrap_or(&name), &sweeps);
    let report = folder.join("report.html");
    io::write(&report, document.as_bytes())?;
    io::write(&folder.join("report.csv"), table::csv(&studies).as_bytes())?;
    let json = serde_json::to_vec_pretty(&studies).map_err(|error| io::internal(error.to_string()))?;
    io::write(&folder.join("report.json"), &json)?;
    let pictures = folder.join("figures");
    fs::create_dir_all(&pictures).map_err(|error| io::cannot_write(&pictures, &error))?;
    for study in &studies {
        for figure in figure::figures(study) {
            let file = pictures.join(format!("{}-{}.svg", study.name, figure.file));
            io::write(&file, draw::figure(&figure).as_bytes())?;
        }
    }
    io::print(out, &format!("{}\n", report.display()))
}

/// The folder's own sweep and those in the folders within.
fn sweeps(folder: &Path) -> Result<Vec<Sweep>, Failure> {
    let listed = fs::read_dir(folder).map_err(|error| io::cannot_read(folder, &error))?;
    let mut folders: Vec<PathBuf> =
        listed.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_dir()).collect();
    folders.sort();
    folders.insert(0, folder.to_owned());
    let mut sweeps = folders.iter().map(|folder| read_folder(folder)).collect::<Result<Vec<_>, _>>()?;
    sweeps.retain(|sweep| !sweep.cells.is_empty() || !sweep.problems.is_empty());
    Ok(sweeps)
}
