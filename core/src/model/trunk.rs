//! What variants of a model have in common.

use burn::tensor::Tensor;

use super::{Cache, Frame, Model, NoTap, frame::Seen, rows::padded};

/// The part of a pass that several variants of a model have in common: the blocks below the first that an edit of any
/// of them changed.
///
/// Variants that are asked the same run it once. An edit of block ℓ of L leaves (L − ℓ) / L of a pass to each variant.
pub(crate) struct Trunk {
    /// The residual stream behind the common blocks: `[batch, pos, d_model]`.
    hidden: Tensor<3>,
    /// What these blocks have seen.
    seen: Vec<Option<Seen>>,
    pub frame: Frame,
}

impl Trunk {
    /// How many blocks the models have in common.
    pub fn depth(models: &[Model]) -> usize {
        models.iter().map(Model::intact).min().unwrap_or(0)
    }

    /// Runs rows of new tokens, after what these blocks have seen in any of the models.
    ///
    /// # Panics
    ///
    /// When there are no models.
    pub fn new(models: &[Model], rows: &[&[u32]], past: &Cache) -> Self {
        let [first, ..] = models else { panic!("a trunk is some model's") };
        let layers = Self::depth(models);
        let lens: Vec<usize> = rows.iter().map(|row| row.len()).collect();
        let frame = Frame::new(past, &lens, &first.device());
        let mut past = past.clone();
        let hidden = first.run(0..layers, first.embed(&padded(rows), &frame), &frame, &mut past, &mut NoTap);
        past.layers.truncate(layers);
        Self { hidden, seen: past.layers, frame }
    }

    /// The rest of the pass of one of the models, after what its own blocks have seen: `[batch, pos, d_model]`. The past
    /// then has what the common blocks have seen as well, and grows by the new tokens.
    pub fn finish(&self, model: &Model, past: &mut Cache) -> Tensor<3> {
        let layers = self.seen.len();
        past.layers[..layers].clone_from_slice(&self.seen);
        let rest = layers..past.layers.len();
        let hidden = model.run(rest, self.hidden.clone(), &self.frame, past, &mut NoTap);
        past.seen_by(&self.frame);
        hidden
    }
}
