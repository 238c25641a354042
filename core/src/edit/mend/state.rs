//! A training as a file, so that it goes on after a stop as if there had been none.

use super::{
    file::{Reader, Writer, settings_text},
    network::{Hypernetwork, Origin},
    train::{Adam, Best, Losses, Trainer},
};
use crate::{Result, model::LoadedModel};

impl Trainer {
    /// A file to go on from.
    pub async fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut writer = Writer::default();
        writer.network("now.", &self.network).await?;
        writer.learnt("mean.", &self.adam.mean).await?;
        writer.learnt("variance.", &self.adam.variance).await?;
        writer.learnt("sum.", &self.sum).await?;
        writer.describe(&self.network, &self.model)?;
        let counts = [
            ("updates", self.adam.updates.to_string()),
            ("summed", self.summed.to_string()),
            ("skipped", self.skipped.to_string()),
            ("validated", self.validated.to_string()),
            ("has_best", u8::from(self.best.is_some()).to_string()),
        ];
        writer.metadata.extend(counts.map(|(name, number)| (name.into(), number)));
        if let Some(Best { network, losses }) = &self.best {
            writer.network("best.", network).await?;
            let numbers = [
                ("best_steps", network.origin.steps.to_string()),
                ("best_edit", losses.edit.to_string()),
                ("best_locality", losses.locality.to_string()),
                ("best_accuracy", losses.accuracy.to_string()),
            ];
            writer.metadata.extend(numbers.map(|(name, number)| (name.into(), number)));
        }
        writer.finish()
    }

    /// Takes up what [`Self::to_bytes`] wrote; nothing when it is of another model, other facts or other settings.
    ///
    /// # Errors
    ///
    /// When the file is malformed.
    pub fn from_bytes(file: &str, bytes: &[u8], of: &LoadedModel, origin: &Origin) -> Result<Option<Self>> {
        let reader = Reader::open(file, bytes)?;
        let same = reader.text("model_hash")? == of.hash
            && reader.precision()? == of.precision
            && reader.text("data_hash")? == origin.data_hash
            && reader.text("settings")? == settings_text(&origin.settings)?;
        if !same {
            return Ok(None);
        }
        let mut network = reader.network("now.", of)?;
        // The same numbers to the last digit, which reading them from text does not promise.
        network.origin.settings = origin.settings.clone();
        let like = |prefix: &str| reader.learnt(prefix, &network.learnt, &of.model.device());
        let (mean, variance, sum) = (like("mean.")?, like("variance.")?, like("sum.")?);
        let steps = network.origin.steps;
        Ok(Some(Self {
            adam: Adam { mean, variance, updates: reader.count("updates", steps)? as i32 },
            sum,
            summed: reader.count("summed", origin.settings.accumulate)?,
            skipped: reader.count("skipped", steps)?,
            validated: reader.count("validated", steps)?,
            best: if reader.number::<u8>("has_best")? == 1 { Some(best(&reader, of, steps)?) } else { None },
            ..Self::with(of, network)
        }))
    }
}

fn best(reader: &Reader<'_>, of: &LoadedModel, steps: usize) -> Result<Best> {
    let network = reader.network("best.", of)?;
    let origin = Origin { steps: reader.count("best_steps", steps)?, ..network.origin.clone() };
    let losses = Losses {
        edit: reader.finite("best_edit")?,
        locality: reader.finite("best_locality")?,
        accuracy: reader.finite("best_accuracy")?,
    };
    Ok(Best { network: Hypernetwork { origin, ..network }, losses })
}
