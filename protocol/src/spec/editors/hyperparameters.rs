use crate::{ArchitectureKind, Failure, ValueSpec};

/// An editor's hyper-parameters: what differs from editor to editor.
pub(super) trait Hyperparameters {
    /// The published settings for a model family.
    fn published(family: ArchitectureKind) -> Self
    where
        Self: Sized;

    /// The layers to edit in a model for which nobody has searched for better ones, from what is published; `None` where
    /// the editor finds them itself.
    fn usual_layers(_family: ArchitectureKind, _n_layers: usize) -> Option<Vec<usize>>
    where
        Self: Sized,
    {
        None
    }

    /// The layers to edit, once they are chosen.
    fn layers(&self) -> Option<&[usize]> {
        None
    }

    /// Where they are chosen.
    fn layers_mut(&mut self) -> Option<&mut Option<Vec<usize>>> {
        None
    }

    /// How values are found.
    fn value(&self) -> Option<&ValueSpec> {
        None
    }

    /// The same, to be changed.
    fn value_mut(&mut self) -> Option<&mut ValueSpec> {
        None
    }

    /// Whether the second moment of the edited layers' keys is needed.
    fn needs_moments(&self) -> bool {
        false
    }

    /// Complains about what is outside its range, layers in general and values aside.
    fn validate(&self) -> Result<(), Failure>;
}

/// Says, within an `impl Hyperparameters`, that there are fields `layers` and `value`.
macro_rules! has {
    (@ layers) => {
        fn layers(&self) -> Option<&[usize]> {
            self.layers.as_deref()
        }

        fn layers_mut(&mut self) -> Option<&mut Option<Vec<usize>>> {
            Some(&mut self.layers)
        }
    };
    (@ value) => {
        fn value(&self) -> Option<&$crate::ValueSpec> {
            Some(&self.value)
        }

        fn value_mut(&mut self) -> Option<&mut $crate::ValueSpec> {
            Some(&mut self.value)
        }
    };
    ($($field:ident),*) => { $(has!(@ $field);)* };
}
pub(super) use has;

/// Complains about more layers than one.
pub(super) fn one_layer(label: &str, layers: Option<&[usize]>) -> Result<(), Failure> {
    match layers {
        None | Some([_]) => Ok(()),
        Some(layers) => {
            Err(Failure::bad_field("layers", format_args!("is {layers:?}; {label} edits exactly one layer")))
        }
    }
}

/// The layer where facts are found: a third up a GPT-2, a sixth up every other family.
pub(super) fn layers_up(family: ArchitectureKind, n_layers: usize) -> usize {
    match (family, n_layers) {
        (ArchitectureKind::Gpt2, 48) => 17,
        (ArchitectureKind::Gpt2, n) => n / 3,
        (ArchitectureKind::Llama | ArchitectureKind::Mistral, n) => n / 6,
        (_, n) => (n + 2) / 6,
    }
}

/// A sixth of all layers, at most five, that end at ROME's in a GPT-2 (13 to 17 for XL), at a quarter in a LLaMA (4 to 8
/// for 7B) and at two sevenths in a Qwen (4 to 8 of 28) and in GPT-J, which has one more (3 to 8 of 28).
pub(super) fn several_layers_up(family: ArchitectureKind, n_layers: usize) -> Vec<usize> {
    let sixth = (n_layers / 6).clamp(1, 5);
    let (last, several) = match family {
        ArchitectureKind::Gpt2 => (layers_up(family, n_layers), sixth),
        ArchitectureKind::Llama | ArchitectureKind::Mistral => (n_layers / 4, sixth),
        ArchitectureKind::Qwen2 | ArchitectureKind::Qwen3 => (n_layers * 2 / 7, ((n_layers + 2) / 6).clamp(1, 5)),
        ArchitectureKind::GptJ => (n_layers * 2 / 7, (n_layers * 3 / 14).clamp(1, 6)),
    };
    (last + 1 - several.min(last + 1)..=last).collect()
}
