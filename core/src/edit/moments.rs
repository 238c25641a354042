//! The second moment of a layer's keys, `C = E[k kᵀ]`: which directions the memory already uses.

use std::{
    collections::{BTreeMap, HashMap},
    sync::OnceLock,
};

use burn::tensor::Tensor;
use faer::MatRef;
use rectify_protocol::Precision;
use safetensors::{Dtype, SafeTensors, serialize, tensor::TensorView};
use sha2::{Digest, Sha256};

use crate::{
    Error, Result,
    kernels::matmul,
    linalg::{Cholesky, Eigen},
    model::{At, Cache, Capture, Frame, LoadedModel, Site, generate::states_at, hex, metadata, open, padded},
    read::read,
};

/// `C = (1/N) Σ k kᵀ`, uncentred, over N tokens of a corpus, for the keys of one layer.
#[derive(Clone)]
pub struct Moment {
    /// `[d_mlp, d_mlp]`, row-major.
    matrix: Vec<f64>,
    /// Length of a key.
    d_mlp: usize,
    /// Tokens in the average; 0 where the file does not say, or nothing was averaged.
    tokens: usize,
    /// Whether it stands in for statistics that nobody gathered.
    approximate: bool,
    /// Made when first needed.
    factor: OnceLock<Cholesky>,
    eigen: OnceLock<Eigen>,
    hash: OnceLock<String>,
}

const MOMENT: &str = "moment";
const FACTOR: &str = "factor";

impl Moment {
    /// The average `matrix [d_mlp, d_mlp]`, row-major, over `tokens` tokens.
    pub fn given(matrix: Vec<f64>, d_mlp: usize, tokens: usize) -> Self {
        let (factor, eigen, hash) = (OnceLock::new(), OnceLock::new(), OnceLock::new());
        Self { matrix, d_mlp, tokens, approximate: false, factor, eigen, hash }
    }

    /// `C = I`: a rough substitute that needs no corpus.
    pub fn identity(d_mlp: usize) -> Self {
        let matrix = (0..d_mlp * d_mlp).map(|i| f64::from(u8::from(i % (d_mlp + 1) == 0))).collect();
        Self { approximate: true, ..Self::given(matrix, d_mlp, 0) }
    }

    /// Reads a statistics file: tensor `moment` `[d_mlp, d_mlp]`, f64 or f32, and in its metadata `tokens`, `corpus` and
    /// `model_hash`. Also what a person should be warned of.
    ///
    /// # Errors
    ///
    /// When the file is not such a file, or says that it belongs to another model or layer.
    pub fn from_bytes(file: &str, bytes: &[u8], of: &LoadedModel, layer: usize) -> Result<(Self, Vec<String>)> {
        let d_mlp = of.model.shape().d_mlp;
        let matrix = square(file, &open(file, bytes)?, MOMENT, d_mlp)?;
        check_moment(&matrix, d_mlp).map_err(|problem| Error::bad_file(file, problem))?;
        let metadata = metadata(bytes);
        let mut warnings = Vec::new();
        match metadata.get("model_hash") {
            Some(hash) if *hash != of.hash => {
                return Err(Error::bad_file(
                    file,
                    format!("was made for the model with hash {hash}, this one has {}", of.hash),
                ));
            }
            Some(_) => {}
            None => warnings.push(format!("{file} does not say which model it was made for")),
        }
        let precision = metadata.get("precision").map_or(Precision::F32.name(), String::as_str);
        if precision != of.precision.name() {
            let ours = of.precision;
            warnings.push(format!("{file} was made by a model stored in {precision}, this one is stored in {ours}"));
        }
        if let Some(stored) = metadata.get("layer").filter(|stored| **stored != layer.to_string()) {
            return Err(Error::bad_file(file, format!("was made for layer {stored}, not {layer}")));
        }
        let tokens = metadata.get("tokens").and_then(|tokens| tokens.parse().ok()).unwrap_or(0);
        if tokens > 0
            && let Some(warning) = too_few(tokens, d_mlp)
        {
            warnings.push(format!("{file}: {warning}"));
        }
        Ok((Self::given(matrix, d_mlp, tokens), warnings))
    }

    /// The file that [`Moment::from_bytes`] reads; `small` rounds to f32 and is half as large.
    pub fn to_bytes(&self, of: &LoadedModel, layer: usize, corpus: &Corpus, small: bool) -> Result<Vec<u8>> {
        let metadata = HashMap::from([
            ("tokens".to_owned(), self.tokens.to_string()),
            ("corpus".to_owned(), corpus.name.clone()),
            ("corpus_hash".to_owned(), corpus.hash.clone()),
            ("document_length".to_owned(), of.model.shape().context.to_string()),
            ("computed_in".to_owned(), "f32, summed in f64".to_owned()),
            ("model_hash".to_owned(), of.hash.clone()),
            ("precision".to_owned(), of.precision.name().to_owned()),
            ("layer".to_owned(), layer.to_string()),
        ]);
        write_square(MOMENT, self.matrix.iter().copied(), self.d_mlp, small, metadata)
    }

    /// `C⁻¹ k`
    ///
    /// # Errors
    ///
    /// When `C` is singular: fewer tokens than entries of a key, or keys that never vary.
    pub fn whiten(&self, key: &[f64]) -> Result<Vec<f64>> {
        let column = MatRef::from_column_major_slice(key, key.len(), 1);
        Ok(self.factor()?.solve(column).col(0).iter().copied().collect())
    }

    /// The Cholesky factor of `C`, found once.
    ///
    /// # Errors
    ///
    /// When `C` is singular.
    pub fn factor(&self) -> Result<&Cholesky> {
        if self.factor.get().is_none() {
            let _ = self.factor.set(Cholesky::new(&self.matrix, self.d_mlp)?);
        }
        Ok(self.factor.get().expect("just set"))
    }

    /// The factor as a file, so that it need not be found again.
    pub fn factor_to_bytes(&self) -> Result<Vec<u8>> {
        let metadata = HashMap::from([("moment_hash".to_owned(), self.hash().to_owned())]);
        write_square(FACTOR, self.factor()?.lower(), self.d_mlp, false, metadata)
    }

    /// Takes a factor that [`Self::factor_to_bytes`] wrote. `false` when it is another moment's.
    ///
    /// # Errors
    ///
    /// When the file is malformed.
    pub fn take_factor(&self, file: &str, bytes: &[u8]) -> Result<bool> {
        let lower = square(file, &open(file, bytes)?, FACTOR, self.d_mlp)?;
        let ours = metadata(bytes).get("moment_hash").is_some_and(|hash| *hash == self.hash());
        Ok(ours && self.factor.set(Cholesky::from_lower(&lower, self.d_mlp)).is_ok())
    }

    /// The eigenvectors of `C`, found once.
    pub(super) fn eigen(&self) -> Result<&Eigen> {
        if self.eigen.get().is_none() {
            let matrix = MatRef::from_row_major_slice(&self.matrix, self.d_mlp, self.d_mlp);
            let _ = self.eigen.set(Eigen::of(matrix)?);
        }
        Ok(self.eigen.get().expect("just set"))
    }

    /// What a report should say of it.
    pub fn note(&self) -> Option<String> {
        self.approximate.then(|| "approximate: the identity stands in for the second moment of keys".into())
    }

    /// The average, row-major.
    pub fn matrix(&self) -> &[f64] {
        &self.matrix
    }

    /// Tokens in the average.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// SHA-256 of the numbers, found once; hexadecimal.
    pub fn hash(&self) -> &str {
        self.hash.get_or_init(|| {
            let mut hash = Sha256::new();
            self.matrix.iter().for_each(|value| hash.update(value.to_le_bytes()));
            hex(&hash.finalize().into())
        })
    }
}

/// What is wrong with an average over so few tokens.
pub fn too_few(tokens: usize, d_mlp: usize) -> Option<String> {
    (tokens < 20 * d_mlp).then(|| {
        format!("{tokens} tokens are averaged; {} (20 for each of a key's {d_mlp} entries) are advisable", 20 * d_mlp)
    })
}

/// Whether a matrix can be a mean of `k kᵀ`: symmetric but for rounding, nothing negative on the diagonal, not all zero.
fn check_moment(matrix: &[f64], n: usize) -> std::result::Result<(), String> {
    const ROUNDING: f64 = 1e-4;
    let largest = (0..n).map(|i| matrix[i * n + i]).fold(0.0, f64::max);
    if largest <= 0.0 {
        return Err(format!("{MOMENT:?} has no positive number on its diagonal: it is no second moment"));
    }
    for i in 0..n {
        if matrix[i * n + i] < -ROUNDING * largest {
            return Err(format!(
                "{MOMENT:?} is {} at [{i}, {i}]: a mean of squares is not negative",
                matrix[i * n + i]
            ));
        }
        if let Some(j) = (0..i).find(|j| (matrix[i * n + j] - matrix[j * n + i]).abs() > ROUNDING * largest) {
            return Err(format!("{MOMENT:?} is not symmetric: [{i}, {j}] and [{j}, {i}] differ"));
        }
    }
    Ok(())
}

/// The tensor `name [n, n]` of a file, in f64.
fn square(file: &str, tensors: &SafeTensors<'_>, name: &str, n: usize) -> Result<Vec<f64>> {
    let view = tensors.tensor(name).map_err(|_| Error::bad_file(file, format!("has no tensor {name:?}")))?;
    let data = view.data();
    let matrix: Vec<f64> = match view.dtype() {
        Dtype::F64 if view.shape() == [n, n] => data.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect(),
        Dtype::F32 if view.shape() == [n, n] => {
            data.as_chunks().0.iter().map(|bytes| f64::from(f32::from_le_bytes(*bytes))).collect()
        }
        dtype => {
            let shape = view.shape();
            let problem = format!("{name:?} is {dtype:?} {shape:?}; this model needs F64 or F32 [{n}, {n}]");
            return Err(Error::bad_file(file, problem));
        }
    };
    match matrix.iter().position(|value| !value.is_finite()) {
        None => Ok(matrix),
        Some(i) => Err(Error::bad_file(file, format!("{name:?} holds {} at element {i}", matrix[i]))),
    }
}

/// A file with the tensor `name [n, n]`, in f64 or, `small`, in f32.
fn write_square(
    name: &str,
    values: impl Iterator<Item = f64>,
    n: usize,
    small: bool,
    metadata: HashMap<String, String>,
) -> Result<Vec<u8>> {
    let (dtype, data): (_, Vec<u8>) = if small {
        (Dtype::F32, values.flat_map(|value| (value as f32).to_le_bytes()).collect())
    } else {
        (Dtype::F64, values.flat_map(f64::to_le_bytes).collect())
    };
    let broken = |error: safetensors::SafeTensorError| Error::bad_file(name, error.to_string());
    let view = TensorView::new(dtype, vec![n, n], &data).map_err(broken)?;
    serialize([(name, view)], Some(metadata)).map_err(broken)
}

/// What a text is called, and which text it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Corpus {
    /// The file's name.
    pub name: String,
    /// [`corpus_hash`] of its documents.
    pub hash: String,
}

/// SHA-256 over the documents, each ended by a zero byte; hexadecimal.
pub fn corpus_hash(documents: &[String]) -> String {
    let mut hash = Sha256::new();
    for document in documents {
        hash.update(document);
        hash.update([0]);
    }
    hex(&hash.finalize().into())
}

/// Sums of `k kᵀ` that grow as a corpus goes by; they can be written down in the middle and taken up again.
#[derive(Clone)]
pub struct Accumulator {
    d_mlp: usize,
    /// By layer, `[d_mlp, d_mlp]`, row-major.
    sums: BTreeMap<usize, Vec<f64>>,
    /// Tokens seen.
    tokens: usize,
    /// Documents seen.
    documents: usize,
}

impl Accumulator {
    /// Nothing seen yet.
    ///
    /// # Errors
    ///
    /// When the model has no such layer.
    pub fn new(of: &LoadedModel, layers: &[usize]) -> Result<Self> {
        layers.iter().try_for_each(|layer| of.model.check_layer(*layer))?;
        let d_mlp = of.model.shape().d_mlp;
        let sums = layers.iter().map(|layer| (*layer, vec![0.0; d_mlp * d_mlp])).collect();
        Ok(Self { d_mlp, sums, tokens: 0, documents: 0 })
    }

    /// Tokens seen.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Documents seen; those to go on with come after so many.
    pub fn documents(&self) -> usize {
        self.documents
    }

    /// Adds some documents, until `limit` tokens were seen in all.
    ///
    /// Each document is one sequence, cut at the context. They pass in batches of about equal lengths; which documents
    /// are handed over together therefore changes the last digits of the sums and nothing else. Products are summed in
    /// f32 on the device within a batch, and in f64 on the host across batches. `watch` is told tokens so far.
    pub async fn add(
        &mut self,
        of: &LoadedModel,
        documents: &[Vec<u32>],
        limit: usize,
        watch: &mut dyn FnMut(usize),
    ) -> Result<()> {
        /// Padded tokens in one batch.
        const BATCH: usize = 2048;
        let context = of.model.shape().context;
        let mut left = limit.saturating_sub(self.tokens);
        let mut rows: Vec<&[u32]> = Vec::with_capacity(documents.len());
        for document in documents {
            let row = &document[..document.len().min(context).min(left)];
            left -= row.len();
            if !row.is_empty() {
                rows.push(row);
            }
        }
        rows.sort_by_key(|row| row.len());
        let layers: Vec<usize> = self.sums.keys().copied().collect();
        let mut rows = rows.as_slice();
        while let Some(longest) = rows.last() {
            let (rest, batch) = rows.split_at(rows.len() - (BATCH / longest.len()).clamp(1, rows.len()));
            let parts = batch_sums(of, batch, &layers).await?;
            for (sum, part) in self.sums.values_mut().zip(parts) {
                sum.iter_mut().zip(part).for_each(|(total, part)| *total += f64::from(part));
            }
            self.tokens += batch.iter().map(|row| row.len()).sum::<usize>();
            watch(self.tokens);
            rows = rest;
        }
        self.documents += documents.len();
        Ok(())
    }

    /// The averages so far, by layer.
    ///
    /// # Errors
    ///
    /// When no token was seen.
    pub fn moments(&self) -> Result<Vec<(usize, Moment)>> {
        if self.tokens == 0 {
            return Err(Error::bad_input("the text has no tokens"));
        }
        if let Some((layer, _)) = self.sums.iter().find(|(_, sum)| sum.iter().any(|value| !value.is_finite())) {
            return Err(Error::NotFinite { what: format!("the second moment of layer {layer}"), hint: String::new() });
        }
        let average = |sum: &Vec<f64>| sum.iter().map(|value| value / self.tokens as f64).collect();
        Ok(self
            .sums
            .iter()
            .map(|(layer, sum)| (*layer, Moment::given(average(sum), self.d_mlp, self.tokens)))
            .collect())
    }

    /// A file to go on from. `of` and `corpus` are what it may be gone on with.
    pub fn to_bytes(&self, of: &LoadedModel, corpus: &Corpus) -> Result<Vec<u8>> {
        let data: Vec<(String, Vec<u8>)> = self
            .sums
            .iter()
            .map(|(layer, sum)| (layer.to_string(), sum.iter().flat_map(|value| value.to_le_bytes()).collect()))
            .collect();
        let broken = |error: safetensors::SafeTensorError| Error::bad_file("the sums", error.to_string());
        let shape = vec![self.d_mlp, self.d_mlp];
        let views = data
            .iter()
            .map(|(name, data)| Ok((name, TensorView::new(Dtype::F64, shape.clone(), data).map_err(broken)?)));
        let metadata = HashMap::from([
            ("tokens".to_owned(), self.tokens.to_string()),
            ("documents".to_owned(), self.documents.to_string()),
            ("corpus_hash".to_owned(), corpus.hash.clone()),
            ("model_hash".to_owned(), of.hash.clone()),
            ("precision".to_owned(), of.precision.name().to_owned()),
        ]);
        serialize(views.collect::<Result<Vec<_>>>()?, Some(metadata)).map_err(broken)
    }

    /// Takes up what [`Self::to_bytes`] wrote; nothing when it is of another model, precision, corpus or other layers.
    ///
    /// # Errors
    ///
    /// When the file is malformed.
    pub fn from_bytes(
        file: &str,
        bytes: &[u8],
        of: &LoadedModel,
        layers: &[usize],
        corpus: &Corpus,
    ) -> Result<Option<Self>> {
        let mut empty = Self::new(of, layers)?;
        let metadata = metadata(bytes);
        let is = |name: &str, value: &String| metadata.get(name) == Some(value);
        let tensors = open(file, bytes)?;
        let same_layers =
            tensors.len() == layers.len() && layers.iter().all(|layer| tensors.tensor(&layer.to_string()).is_ok());
        let precision = metadata.get("precision").map_or(Precision::F32.name(), String::as_str);
        if precision != of.precision.name()
            || !is("model_hash", &of.hash)
            || !is("corpus_hash", &corpus.hash)
            || !same_layers
        {
            return Ok(None);
        }
        let number = |name: &str| {
            let found = metadata.get(name).and_then(|number| number.parse().ok());
            found.ok_or_else(|| Error::bad_file(file, format!("does not say how many {name} it sums")))
        };
        for (layer, sum) in &mut empty.sums {
            *sum = square(file, &tensors, &layer.to_string(), empty.d_mlp)?;
        }
        Ok(Some(Self { tokens: number("tokens")?, documents: number("documents")?, ..empty }))
    }
}

/// `Σ k kᵀ` over the tokens of a batch, for each layer, ascending; padding is left out.
async fn batch_sums(of: &LoadedModel, rows: &[&[u32]], layers: &[usize]) -> Result<Vec<Vec<f32>>> {
    let model = &of.model;
    let deepest = layers.iter().copied().max().unwrap_or(0);
    let mut past = Cache::empty(rows.len(), model.shape().layers);
    let lens: Vec<usize> = rows.iter().map(|row| row.len()).collect();
    let frame = Frame::new(&past, &lens, &model.device());
    let sites: Vec<Site> = layers.iter().map(|layer| Site { layer: *layer, at: At::MlpKey }).collect();
    let mut capture = Capture::new(&sites);
    let hidden = model.embed(&padded(rows), &frame);
    model.run(0..deepest + 1, hidden, &frame, &mut past, &mut capture);
    let tokens: Vec<usize> = lens
        .iter()
        .enumerate()
        .flat_map(|(row, len)| (0..*len).map(move |pos| (row, pos)))
        .map(|(row, pos)| frame.flat(row, pos))
        .collect();
    let mut sums = Vec::with_capacity(layers.len());
    for site in sites {
        let keys: Tensor<2> = states_at(capture.take(site), &tokens); // [tokens, d_mlp]
        sums.push(read(matmul(keys.clone().transpose(), keys)).await?);
    }
    Ok(sums)
}
