use rectify_protocol::{ArchitectureKind, EditorSpec};

use super::Model;

/// Every method's published settings for the model's family, with the layers to edit filled in.
pub fn presets(model: &Model) -> Vec<EditorSpec> {
    let published = |method| EditorSpec::published(method, model.architecture()).expect("from the table");
    EditorSpec::METHODS
        .iter()
        .map(|method| {
            let mut editor = published(method);
            let chosen = layers(method, model.architecture(), model.shape().layers);
            if let Some(layers) = editor.layers_mut() {
                *layers = Some(chosen);
            }
            editor
        })
        .collect()
}

/// The layers a method edits in a model for which nobody has searched for better ones, from what is published:
///
/// - ROME and EMMET: a third up a GPT-2 (17 of 48 for XL, 12 of 36 for large, 8 of 24 for medium), a sixth up a LLaMA
///   (5 of 32 for 7B).
/// - MEMIT and AlphaEdit: a sixth of all layers, at most five, that end at ROME's in a GPT-2 (13 to 17 for XL) and at a
///   quarter in a LLaMA (4 to 8 for 7B).
/// - Fine-tuning: the first of a GPT-2, two thirds up a LLaMA (21 of 32).
fn layers(method: &str, family: ArchitectureKind, n_layers: usize) -> Vec<usize> {
    let rome = match (family, n_layers) {
        (ArchitectureKind::Gpt2, 48) => 17,
        (ArchitectureKind::Gpt2 | ArchitectureKind::GptJ, n) => n / 3,
        (_, n) => n / 6,
    };
    match (method, family) {
        ("memit" | "alphaedit", _) => {
            let last = if family == ArchitectureKind::Gpt2 { rome } else { n_layers / 4 };
            let several = (n_layers / 6).clamp(1, 5).min(last + 1);
            (last + 1 - several..=last).collect()
        }
        ("ft", ArchitectureKind::Gpt2) => vec![0],
        ("ft", _) => vec![n_layers * 2 / 3],
        _ => vec![rome],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(method: &str, family: ArchitectureKind, n_layers: usize, expected: &[usize]) {
        assert_eq!(layers(method, family, n_layers), expected);
    }

    #[test]
    fn the_rule_gives_the_published_layers() {
        use ArchitectureKind::{Gpt2, Llama};
        check("rome", Gpt2, 48, &[17]);
        check("rome", Gpt2, 36, &[12]);
        check("rome", Gpt2, 24, &[8]);
        check("rome", Llama, 32, &[5]);
        check("memit", Gpt2, 48, &[13, 14, 15, 16, 17]);
        check("memit", Llama, 32, &[4, 5, 6, 7, 8]);
        check("alphaedit", Gpt2, 48, &[13, 14, 15, 16, 17]);
        check("ft", Gpt2, 48, &[0]);
        check("ft", Llama, 32, &[21]);
        check("memit", Gpt2, 1, &[0]);
    }
}
