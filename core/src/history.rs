//! The edits a model carries: undo, their sum, and regularising them anew.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use burn::tensor::Tensor;
use rectify_protocol::{Over, Regularizer};

use crate::{
    Error, Result,
    edit::{Delta, LayerKeys, WeightDelta, regularize, seed_of_matrix},
    model::{Model, WeightSite},
};

/// A model as it was loaded, as it is now, and the edits in between.
#[derive(Clone)]
pub(crate) struct History {
    pristine: Model,
    now: Model,
    /// How many edits can be taken back.
    undo_depth: usize,
    /// Edits that can be taken back, oldest first.
    edits: VecDeque<Edit>,
    /// How many older edits the model carries that cannot be taken back any more.
    settled: usize,
    /// The model that carries just those.
    base: Model,
    /// Keys that they wrote, and matrices that they changed.
    settled_keys: Vec<LayerKeys>,
    settled_sites: BTreeSet<WeightSite>,
}

/// One editing operation.
#[derive(Clone)]
pub(crate) struct Edit {
    /// The changes as the editor planned them.
    pub planned: Vec<WeightDelta>,
    /// The model with the change, as it was regularised. Only the matrices it changed are not shared with the one before.
    pub after: Model,
    /// Keys it wrote, for editors that hold on to them.
    pub keys: Vec<LayerKeys>,
}

impl History {
    /// No edits yet.
    pub fn new(model: Model, undo_depth: usize) -> Self {
        Self {
            pristine: model.clone(),
            now: model.clone(),
            undo_depth,
            edits: VecDeque::new(),
            settled: 0,
            base: model,
            settled_keys: Vec::new(),
            settled_sites: BTreeSet::new(),
        }
    }

    /// The same model without its edits.
    pub fn pristine(&self) -> &Model {
        &self.pristine
    }

    /// The model as it is now.
    pub fn now(&self) -> &Model {
        &self.now
    }

    /// How many edits the model carries.
    pub fn len(&self) -> usize {
        self.settled + self.edits.len()
    }

    /// Keys that edits wrote, oldest first.
    pub fn keys(&self) -> Vec<LayerKeys> {
        let written = self.edits.iter().flat_map(|edit| &edit.keys);
        self.settled_keys.iter().chain(written).cloned().collect()
    }

    /// Goes on with one more edit, and settles the oldest when there are too many to take back.
    pub fn push(&mut self, edit: Edit) {
        self.now = edit.after.clone();
        self.edits.push_back(edit);
        if self.edits.len() > self.undo_depth {
            let oldest = self.edits.pop_front().expect("just pushed");
            self.base = oldest.after;
            self.settled_keys.extend(oldest.keys);
            self.settled_sites.extend(oldest.planned.iter().map(|delta| delta.site));
            self.settled += 1;
        }
    }

    /// Takes the latest edit back.
    ///
    /// # Errors
    ///
    /// When there is none, or it was settled.
    pub fn undo(&mut self) -> Result<()> {
        if self.edits.pop_back().is_none() {
            return Err(Error::bad_input(match self.settled {
                0 => "there is no edit to undo".into(),
                n => format!(
                    "only the last {} edits can be undone; {n} older ones stay until the model is loaded anew",
                    self.undo_depth
                ),
            }));
        }
        self.now = self.edits.back().map_or(&self.base, |edit| &edit.after).clone();
        Ok(())
    }

    /// The same edits, regularised anew from what their editors planned; settled ones stay as they are.
    ///
    /// Of each edit: its plan beside the weights it is then added to. Of the total: the sum of all plans beside the
    /// unedited weights, as one change; the edits still can be taken back one by one only up to the last.
    pub async fn regularized(&self, regularizer: Regularizer, over: Over, seed: u64) -> Result<Self> {
        let mut again = Self { edits: VecDeque::with_capacity(self.edits.len()), ..self.clone() };
        match over {
            Over::Each => {
                let mut model = self.base.clone();
                for (n, edit) in self.edits.iter().enumerate() {
                    let seed = seed_of_edit(seed, self.settled + n);
                    model = apply(&model, &edit.planned, regularizer, seed).await?.0;
                    again.edits.push_back(Edit { after: model.clone(), ..edit.clone() });
                }
                again.now = model;
            }
            Over::Total => {
                if self.settled > 0 {
                    return Err(Error::bad_input(format!(
                        "{} edits are settled already and their plans gone: regularise a sequence of at most \
                         {} edits",
                        self.settled, self.undo_depth
                    )));
                }
                let mut sums = BTreeMap::<WeightSite, Tensor<2>>::new();
                for WeightDelta { site, delta } in self.edits.iter().flat_map(|edit| &edit.planned) {
                    let sum = sums.remove(site).map_or_else(|| delta.dense(), |sum| sum + delta.dense());
                    sums.insert(*site, sum);
                }
                let sums: Vec<WeightDelta> =
                    sums.into_iter().map(|(site, sum)| WeightDelta { site, delta: Delta::Dense(sum) }).collect();
                again.now = apply(&self.pristine, &sums, regularizer, seed).await?.0;
                again.edits = self.edits.clone();
                if let Some(last) = again.edits.back_mut() {
                    last.after = again.now.clone();
                }
            }
        }
        Ok(again)
    }

    /// By how much each edited matrix differs from the unedited model's.
    pub fn changes(&self) -> Vec<WeightDelta> {
        let planned = self.edits.iter().flat_map(|edit| &edit.planned);
        let sites: BTreeSet<WeightSite> =
            self.settled_sites.iter().copied().chain(planned.map(|delta| delta.site)).collect();
        let change = |site| Delta::Dense(self.now.weight(site) - self.pristine.weight(site));
        sites.into_iter().map(|site| WeightDelta { site, delta: change(site) }).collect()
    }
}

/// The seed that an edit draws by: its own for each of a sequence, or all would keep the same entries. The first edit's
/// is the one that was asked for.
pub(crate) fn seed_of_edit(seed: u64, edits_before: usize) -> u64 {
    seed ^ (edits_before as u64) << 32
}

/// `model` with `planned` changes as the regularizer leaves them, and how many entries of each it let through.
pub(crate) async fn apply(
    model: &Model,
    planned: &[WeightDelta],
    regularizer: Regularizer,
    seed: u64,
) -> Result<(Model, Vec<(WeightDelta, usize)>)> {
    let mut kept = Vec::with_capacity(planned.len());
    for (i, WeightDelta { site, delta }) in planned.iter().enumerate() {
        let seed = seed_of_matrix(seed, i);
        let (delta, n) = regularize(delta.clone(), &model.weight(*site), regularizer, seed).await?;
        kept.push((WeightDelta { site: *site, delta }, n));
    }
    let deltas: Vec<WeightDelta> = kept.iter().map(|(delta, _)| delta.clone()).collect();
    Ok((model.apply(&deltas)?, kept))
}
