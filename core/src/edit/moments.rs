//! The second moment of a layer's keys, `C = E[k kᵀ]`: which directions the memory already uses.

use std::collections::HashMap;

use burn::tensor::Tensor;
use safetensors::{Dtype, serialize, tensor::TensorView};

use sha2::{Digest, Sha256};

use crate::{
    Error, Result, linalg,
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
    /// Tokens in the average; 0 where the file does not say.
    tokens: usize,
}

const NAME: &str = "moment";

impl Moment {
    /// Reads a statistics file: tensor `moment` `[d_mlp, d_mlp]` f64, and in its metadata `tokens`, `corpus` and
    /// `model_hash`. Also what a person should be warned of.
    ///
    /// # Errors
    ///
    /// When the file is not such a file, or says that it belongs to another model or layer.
    pub fn from_bytes(file: &str, bytes: &[u8], of: &LoadedModel, layer: usize) -> Result<(Self, Vec<String>)> {
        let d_mlp = of.model.shape().d_mlp;
        let tensors = open(file, bytes)?;
        let view = tensors.tensor(NAME).map_err(|_| Error::bad_file(file, format!("has no tensor {NAME:?}")))?;
        if view.shape() != [d_mlp, d_mlp] || view.dtype() != Dtype::F64 {
            return Err(Error::bad_file(
                file,
                format!("{NAME:?} is {:?} {:?}; this model needs F64 [{d_mlp}, {d_mlp}]", view.dtype(), view.shape()),
            ));
        }
        let matrix: Vec<f64> = view.data().as_chunks::<8>().0.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect();
        if let Some(i) = matrix.iter().position(|value| !value.is_finite()) {
            return Err(Error::bad_file(file, format!("{NAME:?} holds {} at element {i}", matrix[i])));
        }
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
        if let Some(stored) = metadata.get("layer").filter(|stored| **stored != layer.to_string()) {
            return Err(Error::bad_file(file, format!("was made for layer {stored}, not {layer}")));
        }
        let tokens = metadata.get("tokens").and_then(|tokens| tokens.parse().ok()).unwrap_or(0);
        if tokens > 0 && tokens < 20 * d_mlp {
            warnings.push(format!(
                "{file} averages {tokens} tokens; {} (20 for each of a key's {d_mlp} entries) are advisable",
                20 * d_mlp
            ));
        }
        Ok((Self { matrix, d_mlp, tokens }, warnings))
    }

    /// The file that [`Moment::from_bytes`] reads.
    pub fn to_bytes(&self, of: &LoadedModel, layer: usize, corpus: &str, corpus_hash: &str) -> Result<Vec<u8>> {
        let data: Vec<u8> = self.matrix.iter().flat_map(|value| value.to_le_bytes()).collect();
        let view = TensorView::new(Dtype::F64, vec![self.d_mlp, self.d_mlp], &data)
            .map_err(|error| Error::bad_file(NAME, error.to_string()))?;
        let metadata = HashMap::from([
            ("tokens".to_owned(), self.tokens.to_string()),
            ("corpus".to_owned(), corpus.to_owned()),
            ("corpus_hash".to_owned(), corpus_hash.to_owned()),
            ("model_hash".to_owned(), of.hash.clone()),
            ("layer".to_owned(), layer.to_string()),
        ]);
        serialize([(NAME, view)], Some(metadata)).map_err(|error| Error::bad_file(NAME, error.to_string()))
    }

    /// `C⁻¹ k`.
    ///
    /// # Errors
    ///
    /// When `C` is singular: fewer tokens than entries of a key, or keys that never vary.
    pub fn whiten(&self, key: &[f32]) -> Result<Vec<f32>> {
        let key: Vec<f64> = key.iter().map(|value| f64::from(*value)).collect();
        Ok(linalg::solve_spd(&self.matrix, &key)?.into_iter().map(|value| value as f32).collect())
    }

    /// The average, row-major.
    pub fn matrix(&self) -> &[f64] {
        &self.matrix
    }

    /// Tokens in the average.
    pub fn tokens(&self) -> usize {
        self.tokens
    }
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

/// Averages `k kᵀ` of several layers over documents, in order, until `limit` tokens were seen.
///
/// Each document is one sequence, cut at the context. Products are summed in f32 on the device within a batch, and in
/// f64 on the host across batches. `watch` is told tokens so far.
pub async fn accumulate(
    of: &LoadedModel,
    documents: &[Vec<u32>],
    layers: &[usize],
    limit: usize,
    watch: &mut dyn FnMut(usize),
) -> Result<Vec<Moment>> {
    /// Padded tokens in one batch.
    const BATCH: usize = 2048;
    let shape = of.model.shape();
    let Some(deepest) = layers.iter().copied().max() else { return Ok(Vec::new()) };
    of.model.check_layer(deepest)?;
    let mut moments =
        vec![Moment { matrix: vec![0.0; shape.d_mlp * shape.d_mlp], d_mlp: shape.d_mlp, tokens: 0 }; layers.len()];
    let mut seen = 0;
    let mut waiting: Vec<&[u32]> = Vec::new();
    let mut documents = documents.iter().filter(|document| !document.is_empty()).peekable();
    while let Some(document) = documents.next() {
        let left = limit - seen - waiting.iter().map(|row| row.len()).sum::<usize>();
        waiting.push(&document[..document.len().min(shape.context).min(left)]);
        let full = waiting.len() * waiting.iter().map(|row| row.len()).max().unwrap_or(0) >= BATCH;
        let last = documents.peek().is_none() || seen + waiting.iter().map(|row| row.len()).sum::<usize>() >= limit;
        if full || last {
            let batch = std::mem::take(&mut waiting);
            let sums = batch_sums(of, &batch, layers, deepest).await?;
            for (moment, sum) in moments.iter_mut().zip(sums) {
                for (total, part) in moment.matrix.iter_mut().zip(sum) {
                    *total += f64::from(part);
                }
            }
            seen += batch.iter().map(|row| row.len()).sum::<usize>();
            watch(seen);
        }
        if last {
            break;
        }
    }
    if seen == 0 {
        return Err(Error::bad_input("the text has no tokens"));
    }
    for moment in &mut moments {
        moment.tokens = seen;
        moment.matrix.iter_mut().for_each(|value| *value /= seen as f64);
    }
    Ok(moments)
}

/// `Σ k kᵀ` over the tokens of a batch, for each layer; padding is left out.
async fn batch_sums(of: &LoadedModel, rows: &[&[u32]], layers: &[usize], deepest: usize) -> Result<Vec<Vec<f32>>> {
    let model = &of.model;
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
        sums.push(read(keys.clone().transpose().matmul(keys)).await?);
    }
    Ok(sums)
}
