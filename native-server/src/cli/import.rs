//! `rectify stats import`: second moments that ROME's and MEMIT's own programs gathered.
//!
//! Such a file is NumPy's archive with the *sum* `Σ k kᵀ` as `mom2.mom2` and the number of keys as `mom2.count`
//! (<https://github.com/kmeng01/rome/blob/main/util/runningstats.py>, `SecondMoment`); ours holds the average.

use std::{
    fs::File,
    io::{Read, Write},
    path::PathBuf,
};

use npyz::{NpyFile, Order};
use rectify_core::edit::moments::{Corpus, Moment, too_few};
use rectify_protocol::Failure;
use zip::ZipArchive;

use super::{Desk, Place};
use crate::{
    device::DeviceKind,
    io,
    models::moment_file,
    output::{self, OutDir},
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The file: …float32_mom2_100000.npz
    #[arg(value_name = "FILE.npz")]
    file: PathBuf,
    /// The model whose keys it is about: a bundled model's id, a folder, or owner/name on the Hugging Face Hub
    #[arg(long)]
    model: String,
    /// The layer whose keys it is about: the file's name says it
    #[arg(long, value_name = "N")]
    layer: usize,
    /// Write moment.LAYER.safetensors into this folder
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

pub(super) fn run(args: &Args, place: &Place, out: &mut dyn Write) -> Result<(), Failure> {
    let folder = OutDir::prepare(&args.out, output::Kind::Moments)?;
    let mut sums = Sums::open(&args.file)?;
    let desk = Desk::open(&args.model, place, DeviceKind::default())?;
    let of = desk.session.loaded().expect("a desk opens with a model");
    let shape = of.model.shape();
    if args.layer >= shape.layers {
        let problem = format_args!("is {}; {} has {} layers, from 0", args.layer, args.model, shape.layers);
        return Err(Failure::bad_field("--layer", problem));
    }
    let tokens = sums.count()?;
    let mean: Vec<f64> = sums.matrix(shape.d_mlp)?.into_iter().map(|sum| sum / tokens as f64).collect();
    let name = args.file.file_name().unwrap_or(args.file.as_os_str()).to_string_lossy().into_owned();
    let corpus = Corpus { name, hash: io::sha256(&args.file)?.0 };
    let moment = Moment::given(mean, shape.d_mlp, tokens);
    folder.write(&moment_file(args.layer), &moment.to_bytes(of, args.layer, &corpus, true)?)?;
    folder.commit()?;
    too_few(tokens, shape.d_mlp).iter().for_each(|warning| io::warn(warning));
    io::say(&format!("the average over {tokens} keys; nobody but the file's name says that they are this model's"));
    io::print(out, &format!("{}\n", args.out.join(moment_file(args.layer)).display()))
}

/// The open archive.
struct Sums {
    archive: ZipArchive<File>,
    name: String,
}

impl Sums {
    fn open(path: &std::path::Path) -> Result<Self, Failure> {
        let name = path.display().to_string();
        let file = File::open(path).map_err(|error| io::cannot_read(path, &error))?;
        let archive = ZipArchive::new(file)
            .map_err(|error| Failure::bad_input(format!("{name} is no archive of NumPy's (.npz): {error}")))?;
        Ok(Self { archive, name })
    }

    fn wrong(&self, problem: impl std::fmt::Display) -> Failure {
        Failure::bad_input(format!("{}: {problem}", self.name))
    }

    /// Keys that were summed.
    fn count(&mut self) -> Result<usize, Failure> {
        let (counts, _) = self.array("mom2.count", 1)?;
        let count = counts.first().copied().unwrap_or(0.0);
        if count < 1.0 || count.fract() != 0.0 || count > 2_f64.powi(53) {
            return Err(self.wrong(format_args!("mom2.count is {count}; a number of keys is expected")));
        }
        Ok(count as usize)
    }

    /// The sums, `[d_mlp, d_mlp]`.
    fn matrix(&mut self, d_mlp: usize) -> Result<Vec<f64>, Failure> {
        let (sums, shape) = self.array("mom2.mom2", d_mlp * d_mlp)?;
        let wanted = [d_mlp as u64; 2];
        if shape != wanted {
            return Err(self.wrong(format_args!("mom2.mom2 is {shape:?}; the keys of this model make {wanted:?}")));
        }
        if let Some(at) = sums.iter().position(|sum| !sum.is_finite()) {
            return Err(self.wrong(format_args!("mom2.mom2 holds {} at {}, {}", sums[at], at / d_mlp, at % d_mlp)));
        }
        // It is its own transpose, so the order of rows and columns does not matter; anything else is another array.
        let largest = (0..d_mlp).map(|i| sums[i * (d_mlp + 1)]).fold(0.0, f64::max);
        let differs = |i: usize, j: usize| (sums[i * d_mlp + j] - sums[j * d_mlp + i]).abs() > 1e-3 * largest;
        if let Some((i, j)) = (0..d_mlp).flat_map(|i| (0..i).map(move |j| (i, j))).find(|(i, j)| differs(*i, *j)) {
            return Err(self.wrong(format_args!("mom2.mom2 is not symmetric at {i}, {j}")));
        }
        Ok(sums)
    }

    /// An array of floats or whole numbers with at most `most` entries, and its shape.
    fn array(&mut self, name: &str, most: usize) -> Result<(Vec<f64>, Vec<u64>), Failure> {
        let entries: Vec<String> = self.archive.file_names().filter_map(|name| Some(name.ok()?.into_owned())).collect();
        let wrong = |problem: String| Failure::bad_input(format!("{}: {problem}", self.name));
        let Ok(entry) = self.archive.by_name(&format!("{name}.npy")) else {
            let holds = entries.join(", ");
            return Err(wrong(format!("has no {name}, as ROME's statistics have; it holds {holds}")));
        };
        // To its end, where its checksum is compared. 64 KiB are more than a header has.
        let (bound, mut bytes) = (most as u64 * 8 + (64 << 10), Vec::new());
        entry
            .take(bound + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| wrong(format!("{name} cannot be read: {error}")))?;
        if bytes.len() as u64 > bound {
            return Err(wrong(format!("{name} has more than {bound} bytes; at most {most} numbers are expected")));
        }
        let file = NpyFile::new(&bytes[..]).map_err(|error| wrong(format!("{name} cannot be read: {error}")))?;
        let (shape, kind) = (file.shape().to_vec(), file.dtype().descr());
        let entries = shape.iter().try_fold(1_u64, |size, length| size.checked_mul(*length));
        if entries.is_none_or(|entries| entries > most as u64) {
            return Err(wrong(format!("{name} is {shape:?}; at most {most} numbers are expected")));
        }
        if file.order() != Order::C && shape.len() > 2 {
            return Err(wrong(format!("{name} has more than two axes")));
        }
        let read = match kind.as_str() {
            "'<f4'" => file.into_vec::<f32>().map(|values| values.into_iter().map(f64::from).collect()),
            "'<f8'" => file.into_vec::<f64>(),
            "'<i8'" => file.into_vec::<i64>().map(|values| values.into_iter().map(|value| value as f64).collect()),
            "'<i4'" => file.into_vec::<i32>().map(|values| values.into_iter().map(f64::from).collect()),
            _ => return Err(wrong(format!("{name} holds numbers of type {kind}, which this is not read from"))),
        };
        Ok((read.map_err(|error| wrong(format!("{name} breaks off: {error}")))?, shape))
    }
}
