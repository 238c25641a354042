//! The short texts that stand before a prompt while an edit is computed, so that it holds in any company.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rectify_protocol::Contexts;
use unicode_normalization::UnicodeNormalization;

use crate::{
    Result,
    model::{LoadedModel, sampling::write_on},
};

/// What the sampled texts begin with.
const SEEDS: [&str; 5] = ["The", "Therefore", "Because", "I", "You"];
/// How many texts are sampled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sampling {
    /// ROME's 20: for each seed two of five tokens and two of ten.
    Twenty,
    /// MEMIT's five: for each seed one of ten tokens.
    Five,
}

impl Sampling {
    /// Tokens of a text in all, and how many texts of that length begin with each seed.
    fn lengths(self) -> &'static [(usize, usize)] {
        match self {
            Self::Twenty => &[(5, 2), (10, 2)],
            Self::Five => &[(10, 1)],
        }
    }
}

/// Where the prompt goes in a template.
pub(crate) const SLOT: &str = "{}";

/// The templates of an edit, the bare prompt first.
///
/// Sampled ones come from `of`, which should be the unedited model: texts of 5 or 10 tokens, top-5 at temperature 1,
/// as in the authors' code, which does not seed them. `watch` is told tokens so far and in all.
///
/// # Errors
///
/// When a given template does not have exactly one `{}`.
pub async fn templates(
    contexts: &Contexts,
    sampling: Sampling,
    of: &LoadedModel,
    seed: u64,
    watch: &mut dyn FnMut(usize, usize),
) -> Result<Vec<String>> {
    contexts.validate()?;
    let mut templates = match contexts {
        Contexts::Given(templates) => templates.clone(),
        Contexts::Sampled => sample(of, sampling, seed, watch).await?,
    };
    // The update is made exact for the bare prompt, so it is always there, and first.
    templates.retain(|template| template != SLOT);
    templates.insert(0, SLOT.into());
    Ok(templates)
}

async fn sample(
    of: &LoadedModel,
    sampling: Sampling,
    seed: u64,
    watch: &mut dyn FnMut(usize, usize),
) -> Result<Vec<String>> {
    let texts = write(of, sampling.lengths(), seed, watch).await?;
    texts.iter().map(|text| Ok(format!("{}. {SLOT}", tidy(&of.tokenizer.decode(text)?)))).collect()
}

/// Ten texts of 16 tokens that a model writes; the same ones every time.
pub(crate) async fn own_texts(of: &LoadedModel) -> Result<Vec<Vec<u32>>> {
    let room = of.model.shape().context.min(16);
    write(of, &[(room, 2)], 0, &mut |_, _| {}).await
}

/// Texts that begin with each of [`SEEDS`]: for each length in tokens, so many of them.
async fn write(
    of: &LoadedModel,
    lengths: &[(usize, usize)],
    seed: u64,
    watch: &mut dyn FnMut(usize, usize),
) -> Result<Vec<Vec<u32>>> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let total = lengths.iter().map(|(length, _)| length).sum();
    let mut written = Vec::new();
    let mut done = 0;
    for &(length, per_seed) in lengths {
        let mut texts = Vec::new();
        for seed in SEEDS {
            let ids = of.tokenizer.encode(seed)?;
            texts.extend(std::iter::repeat_n(ids, per_seed));
        }
        let mut tell = || {
            done += 1;
            watch(done.min(total), total);
        };
        let texts = write_on(&of.model, texts, length, &mut rng, &mut tell).await?;
        written.extend(texts);
    }
    Ok(written)
}

/// Normalised as the authors do: NFKD, no blank lines, no braces (they would look like slots).
fn tidy(text: &str) -> String {
    text.nfkd().collect::<String>().replace("\n\n", " ").replace("<|endoftext|>", "").replace(['{', '}'], "")
}
