//! Matrices stored in half precision or in eight bits: the numbers of a checkpoint that holds just those, and no others.

use half::f16;
use rectify_core::{
    Session,
    model::{Description, Layout, LoadedModel, Loader, Matrix, WeightSite},
};
use rectify_protocol::{Contexts, EditReport, EditSpec, EditorSpec, Fact, Guards, Precision, RomeSpec, ValueSpec};
use safetensors::{Dtype, SafeTensors, serialize, tensor::TensorView};

use crate::golden::{self, MODELS, device, file, logits_after, values};

/// The model's checkpoint with the numbers of each tensor as `of` gives them, stored in a type.
fn changed(model: &str, dtype: Dtype, of: impl Fn(&str, &[usize], Vec<f32>) -> Vec<f32>) -> Vec<u8> {
    let whole = SafeTensors::deserialize(file(model, "model.safetensors")).expect("golden's file");
    let stored: Vec<(String, Vec<usize>, Vec<u8>)> = whole
        .iter()
        .map(|(name, view)| {
            let numbers = view.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b));
            let numbers = of(name, view.shape(), numbers.collect()).into_iter();
            let bytes = match dtype {
                Dtype::F16 => numbers.flat_map(|x| f16::from_f32(x).to_le_bytes()).collect(),
                _ => numbers.flat_map(f32::to_le_bytes).collect(),
            };
            (name.to_owned(), view.shape().to_vec(), bytes)
        })
        .collect();
    let views = stored.iter().map(|(name, shape, bytes)| {
        (name.as_str(), TensorView::new(dtype, shape.clone(), bytes).expect("as many bytes as before"))
    });
    serialize(views, None).expect("serializes")
}

/// With every number rounded to half precision.
fn rounded(model: &str, dtype: Dtype) -> Vec<u8> {
    changed(model, dtype, |_, _, numbers| numbers.into_iter().map(|x| f16::from_f32(x).to_f32()).collect())
}

/// With the numbers of blocks rounded to 127ths of the largest of 32 inputs, as they are defined.
fn in_eight_bits(model: &str) -> Vec<u8> {
    let layout = Layout::of(file(model, "config.json")).expect("a family");
    changed(model, Dtype::F32, |name, shape, mut numbers| {
        let &[rows, columns] = shape else { return numbers };
        if (layout.is_embedding)(name) {
            return numbers;
        }
        let [d_in, d_out] = if layout.transposed { [columns, rows] } else { [rows, columns] };
        let place = |input: usize, output: usize| match layout.transposed {
            true => output * d_in + input,
            false => input * d_out + output,
        };
        for output in 0..d_out {
            for first in (0..d_in).step_by(32) {
                let inputs = first..d_in.min(first + 32);
                let largest = inputs.clone().map(|input| numbers[place(input, output)].abs()).fold(0.0f32, f32::max);
                let scale = largest / 127.0;
                for input in inputs.filter(|_| scale > 0.0) {
                    let number = &mut numbers[place(input, output)];
                    *number = (*number / scale).round() * scale;
                }
            }
        }
        numbers
    })
}

fn load(model: &str, bytes: &[u8], precision: Precision) -> rectify_core::Result<LoadedModel> {
    let (config, tokenizer) = (file(model, "config.json"), file(model, "tokenizer.json"));
    let mut loader = Loader::new(&Description { precision, ..Description::new(config, tokenizer) }, &device())?;
    loader.add_shard("model.safetensors", bytes)?;
    loader.finish(model)
}

/// One ROME edit.
fn edited(loaded: LoadedModel) -> EditReport {
    let fact = Fact {
        subject: "Danielle Darrieux".into(),
        prompt: "The mother tongue of Danielle Darrieux is".into(),
        target_new: "English".into(),
        ..Fact::default()
    };
    let contexts = Contexts::Given(vec!["{}".into(), "It is said. {}".into()]);
    let value = ValueSpec { contexts, ..ValueSpec::default() };
    let rome = RomeSpec { layers: Some(vec![1]), value, ..RomeSpec::default() };
    let spec = EditSpec { guards: Guards::NONE, ..EditSpec::new(EditorSpec::Rome(rome)) };
    let mut session = Session::new(device(), "flex", || 0.0);
    session.open(loaded);
    pollster::block_on(session.write(&[fact], spec, &mut |_| {})).expect("edits")
}

/// A model that stores its matrices in fewer bits answers and edits as one with the same numbers in full.
#[track_caller]
fn check(name: &str, ours: LoadedModel, full: &LoadedModel, precision: Precision) {
    assert_eq!(ours.precision, precision);
    let site = WeightSite { layer: 1, matrix: Matrix::MlpDown };
    assert_eq!(values(ours.model.weight(site)), values(full.model.weight(site)), "{name}");
    for prompt in ["The mother tongue of Danielle Darrieux is", "a"] {
        let [found, expected] = [&ours, full].map(|loaded| logits_after(loaded, &loaded.model, prompt));
        let size = expected.iter().fold(0.0f32, |most, x| most.max(x.abs()));
        for (found, expected) in found.iter().zip(&expected) {
            assert!((found - expected).abs() <= 1e-5 * size, "{name} {precision}: {found} {expected}");
        }
    }
    let (ours, expected) = (edited(ours), edited(full.clone()));
    assert_eq!(ours.steps, expected.steps, "{name}");
    assert!((ours.delta_norm / expected.delta_norm - 1.0).abs() < 1e-3, "{name}: {ours:?} {expected:?}");
}

#[golden::test]
fn a_model_of_halves_computes_what_the_same_numbers_do_in_full() {
    for name in MODELS {
        let full = load(name, &rounded(name, Dtype::F32), Precision::F32).expect("loads");
        for dtype in [Dtype::F16, Dtype::F32] {
            let half = load(name, &rounded(name, dtype), Precision::F16).expect("loads");
            check(name, half, &full, Precision::F16);
        }
    }
}

#[golden::test]
fn a_model_of_eight_bits_computes_what_the_same_numbers_do_in_full() {
    for name in MODELS {
        let full = load(name, &in_eight_bits(name), Precision::F32).expect("loads");
        let ours = load(name, file(name, "model.safetensors"), Precision::Int8).expect("loads");
        check(name, ours, &full, Precision::Int8);
    }
}

/// What a checkpoint is refused with whose first matrix begins with a number, and what that matrix is called.
fn refused(number: f32, precision: Precision) -> (Option<String>, String) {
    let mut shard = file(MODELS[0], "model.safetensors").to_vec();
    let whole = SafeTensors::deserialize(&shard).expect("a whole file");
    let is_matrix = |name: &str, shape: &[usize]| shape.len() == 2 && name.contains("mlp");
    let (name, view) = whole.iter().find(|(name, view)| is_matrix(name, view.shape())).expect("a matrix");
    let (name, at) = (name.to_owned(), view.data().as_ptr().addr() - shard.as_ptr().addr());
    shard[at..at + 4].copy_from_slice(&number.to_le_bytes());
    (load(MODELS[0], &shard, precision).err().map(|error| error.to_string()), name)
}

#[golden::test]
fn a_number_that_cannot_be_stored_is_named() {
    for (number, precision, told) in [
        (1e6, Precision::F32, None),
        (1e6, Precision::F16, Some("holds 1000000 at element 0, more than half precision can")),
        (1e6, Precision::Int8, None),
        (f32::NAN, Precision::Int8, Some("holds NaN at element 0")),
        (f32::INFINITY, Precision::Int8, Some("holds inf at element 0")),
    ] {
        let (message, name) = refused(number, precision);
        let expected = told.map(|told| format!("tensor {name:?} {told}"));
        match (&message, &expected) {
            (Some(message), Some(expected)) => assert!(message.contains(expected), "{message}"),
            _ => assert_eq!(message, expected, "{number} {precision}"),
        }
    }
}
