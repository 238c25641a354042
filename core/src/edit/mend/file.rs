//! A hypernetwork as a safetensors file.
//!
//! Tensors `net_{d_in}x{d_out}.layer{0,1}.{U,V,bias,scale,shift}` and `alpha`, f32; the statistics
//! `net_{d_in}x{d_out}.{k,mu_x,s_x,mu_d,s_d}`, f64. The metadata says for which model, which matrices and how it was
//! trained.

use std::collections::HashMap;

use burn::tensor::{Device, Tensor, TensorData};
use rectify_protocol::{MendTraining, Precision, bounds};
use safetensors::{Dtype, SafeTensors, serialize, tensor::TensorView};
use sha2::{Digest, Sha256};

use super::{
    network::{Hypernetwork, Learnt, Origin},
    statistics::{Running, Statistics},
};
use crate::{
    Error, Result,
    model::{LoadedModel, Model, WeightSite, floats, hex, metadata, open},
    read::read,
};

impl Hypernetwork {
    /// Reads what [`Self::to_bytes`] wrote; `file` is its name in messages.
    ///
    /// # Errors
    ///
    /// When the file is malformed, or made for another model.
    pub fn from_bytes(file: &str, bytes: &[u8], of: &LoadedModel) -> Result<Self> {
        let reader = Reader::open(file, bytes)?;
        let found = reader.network("", of)?;
        Ok(Self { hash: Some(hex(&Sha256::digest(bytes).into())), ..found })
    }

    /// A file with everything that was learnt. `model` is the one it belongs to.
    pub async fn to_bytes(&self, model: &Model) -> Result<Vec<u8>> {
        let mut writer = Writer::default();
        writer.network("", self).await?;
        writer.describe(self, model)?;
        writer.finish()
    }
}

/// Tensors and metadata on their way into a file.
#[derive(Default)]
pub(super) struct Writer {
    tensors: Vec<(String, Dtype, Vec<usize>, Vec<u8>)>,
    pub(super) metadata: HashMap<String, String>,
}

impl Writer {
    /// Says whose hypernetwork this is, and how it came about.
    pub(super) fn describe(&mut self, network: &Hypernetwork, model: &Model) -> Result<()> {
        let names: Vec<String> = network.parameters.iter().map(|parameter| model.name(parameter.site)).collect();
        let Origin { settings, data, data_hash, steps } = &network.origin;
        self.metadata.extend([
            ("model_hash".into(), network.model_hash.clone()),
            ("precision".into(), network.precision.name().into()),
            ("parameters".into(), json_text(&names)?),
            ("settings".into(), settings_text(settings)?),
            ("data".into(), data.clone()),
            ("data_hash".into(), data_hash.clone()),
            ("steps".into(), steps.to_string()),
        ]);
        Ok(())
    }

    /// What was learnt and the statistics.
    pub(super) async fn network(&mut self, prefix: &str, network: &Hypernetwork) -> Result<()> {
        self.learnt(prefix, &network.learnt).await?;
        for (net, statistics) in network.learnt.nets.iter().zip(&network.statistics) {
            let name = format!("{prefix}{}", net.name());
            self.doubles(format!("{name}.k"), &[statistics.k]);
            for (end, running) in [("x", &statistics.x), ("d", &statistics.d)] {
                self.doubles(format!("{name}.mu_{end}"), &running.mean);
                self.doubles(format!("{name}.s_{end}"), &running.s);
            }
        }
        Ok(())
    }

    /// Numbers arranged as those that training changes.
    pub(super) async fn learnt(&mut self, prefix: &str, learnt: &Learnt) -> Result<()> {
        for (name, tensor) in learnt.names().into_iter().zip(learnt.tensors()) {
            let shape = stored_shape(&name, tensor.dims());
            let bytes = read(tensor).await?.iter().flat_map(|value| value.to_le_bytes()).collect();
            self.tensors.push((format!("{prefix}{name}"), Dtype::F32, shape, bytes));
        }
        Ok(())
    }

    fn doubles(&mut self, name: String, values: &[f64]) {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.tensors.push((name, Dtype::F64, vec![values.len()], bytes));
    }

    pub(super) fn finish(self) -> Result<Vec<u8>> {
        let broken = |error: safetensors::SafeTensorError| Error::bad_file("the hypernetwork", error.to_string());
        let views = self.tensors.iter().map(|(name, dtype, shape, bytes)| {
            Ok((name, TensorView::new(*dtype, shape.clone(), bytes).map_err(broken)?))
        });
        serialize(views.collect::<Result<Vec<_>>>()?, Some(self.metadata)).map_err(broken)
    }
}

/// Settings as the metadata has them.
pub(super) fn settings_text(settings: &MendTraining) -> Result<String> {
    json_text(settings)
}

fn json_text(value: &impl serde::Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|error| Error::bad_input(error.to_string()))
}

/// A bias and the step sizes are vectors in a file and rows in a computation.
fn stored_shape(name: &str, dims: [usize; 2]) -> Vec<usize> {
    if name == "alpha" || name.ends_with(".bias") { vec![dims[1]] } else { dims.to_vec() }
}

/// A file that is read.
pub(super) struct Reader<'a> {
    file: &'a str,
    tensors: SafeTensors<'a>,
    metadata: HashMap<String, String>,
}

impl<'a> Reader<'a> {
    pub(super) fn open(file: &'a str, bytes: &'a [u8]) -> Result<Self> {
        Ok(Self { file, tensors: open(file, bytes)?, metadata: metadata(bytes) })
    }

    fn refuse<T>(&self, problem: impl Into<String>) -> Result<T> {
        Err(Error::bad_file(self.file, problem))
    }

    /// What the metadata says under `name`.
    pub(super) fn text(&self, name: &str) -> Result<&str> {
        match self.metadata.get(name) {
            Some(text) => Ok(text),
            None => self.refuse(format!("does not say its {name}; it is not from `rectify mend train`")),
        }
    }

    /// How the model's matrices were stored; files from before it was chosen do not say so.
    pub(super) fn precision(&self) -> Result<Precision> {
        match self.metadata.get("precision") {
            None => Ok(Precision::F32),
            Some(name) => name.parse().or_else(|problem: String| self.refuse(problem)),
        }
    }

    /// A number that the metadata names.
    pub(super) fn number<T: std::str::FromStr>(&self, name: &str) -> Result<T> {
        let text = self.text(name)?;
        text.parse().or_else(|_| self.refuse(format!("says that its {name} is {text:?}, which is no such number")))
    }

    /// A number of things of which there cannot be more than `most`.
    pub(super) fn count(&self, name: &str, most: usize) -> Result<usize> {
        let count = self.number(name)?;
        if count <= most { Ok(count) } else { self.refuse(format!("says that its {name} is {count}, above {most}")) }
    }

    /// A number that is one.
    pub(super) fn finite(&self, name: &str) -> Result<f64> {
        let number: f64 = self.number(name)?;
        if number.is_finite() { Ok(number) } else { self.refuse(format!("says that its {name} is {number}")) }
    }

    /// A value that the metadata writes as JSON.
    fn json<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<T> {
        let text = self.text(name)?;
        serde_json::from_str(text).or_else(|error| self.refuse(format!("its {name} cannot be read: {error}")))
    }

    fn settings(&self) -> Result<MendTraining> {
        self.json("settings")
    }

    /// The hypernetwork whose tensors begin with `prefix`.
    pub(super) fn network(&self, prefix: &str, of: &LoadedModel) -> Result<Hypernetwork> {
        let model_hash = self.text("model_hash")?;
        if model_hash != of.hash {
            let ours = &of.hash;
            return self.refuse(format!("was trained for the model with hash {model_hash}, this one has {ours}"));
        }
        let origin = Origin {
            settings: self.settings()?,
            data: self.text("data")?.into(),
            data_hash: self.text("data_hash")?.into(),
            steps: self.count("steps", bounds::TRAINING)?,
        };
        let blank = Hypernetwork::new(of, &self.sites(&of.model)?, origin);
        let learnt = self.learnt(prefix, &blank.learnt, &of.model.device())?;
        let statistics =
            blank.learnt.nets.iter().map(|net| self.statistics(&format!("{prefix}{}", net.name()), net.shape));
        let statistics = statistics.collect::<Result<_>>()?;
        Ok(Hypernetwork { learnt, statistics, precision: self.precision()?, ..blank })
    }

    /// The matrices that it edits.
    fn sites(&self, model: &Model) -> Result<Vec<WeightSite>> {
        let names: Vec<String> = self.json("parameters")?;
        let mut sites = Vec::with_capacity(names.len());
        for name in &names {
            match model.site_named(name) {
                Some(site) if !sites.contains(&site) => sites.push(site),
                Some(_) => return self.refuse(format!("names the parameter {name:?} twice")),
                None => {
                    return self
                        .refuse(format!("edits {name:?}, which is no matrix that editors change in this model"));
                }
            }
        }
        if sites.is_empty() { self.refuse("names no parameter that it edits") } else { Ok(sites) }
    }

    /// Tensors of the names and shapes of `like`.
    pub(super) fn learnt(&self, prefix: &str, like: &Learnt, device: &Device) -> Result<Learnt> {
        let tensors = like.names().into_iter().zip(like.tensors()).map(|(name, like)| {
            let expected = stored_shape(&name, like.dims());
            let name = format!("{prefix}{name}");
            let view = self.view(&name, &expected)?;
            let data = TensorData::new(floats(self.file, &name, &view)?, like.dims());
            Ok(Tensor::from_data(data, device))
        });
        Ok(like.with(tensors.collect::<Result<Vec<_>>>()?))
    }

    fn statistics(&self, name: &str, [d_in, d_out]: [usize; 2]) -> Result<Statistics> {
        let running = |end: &str, width: usize| {
            Ok::<_, Error>(Running {
                mean: self.doubles(&format!("{name}.mu_{end}"), width)?,
                s: self.doubles(&format!("{name}.s_{end}"), width)?,
            })
        };
        Ok(Statistics { k: self.doubles(&format!("{name}.k"), 1)?[0], x: running("x", d_in)?, d: running("d", d_out)? })
    }

    fn doubles(&self, name: &str, n: usize) -> Result<Vec<f64>> {
        let view = self.view(name, &[n])?;
        let values: Vec<f64> = match view.dtype() {
            Dtype::F64 => view.data().as_chunks::<8>().0.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect(),
            _ => floats(self.file, name, &view)?.into_iter().map(f64::from).collect(),
        };
        match values.iter().position(|value| !value.is_finite()) {
            None => Ok(values),
            Some(i) => self.refuse(format!("tensor {name:?} holds {} at element {i}", values[i])),
        }
    }

    fn view(&self, name: &str, expected: &[usize]) -> Result<TensorView<'_>> {
        match self.tensors.tensor(name) {
            Ok(view) if view.shape() == expected => Ok(view),
            Ok(view) => {
                self.refuse(format!("tensor {name:?} is {:?}; for this model it is {expected:?}", view.shape()))
            }
            Err(_) => self.refuse(format!("has no tensor {name:?}")),
        }
    }
}
