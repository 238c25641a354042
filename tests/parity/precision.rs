//! Matrices stored in half precision: the numbers of a checkpoint that is stored so, and no others.

use half::f16;
use rectify_core::{
    Session,
    model::{Description, LoadedModel, Loader, Matrix, WeightSite},
};
use rectify_protocol::{Contexts, EditReport, EditSpec, EditorSpec, Fact, Guards, Precision, RomeSpec, ValueSpec};
use safetensors::{Dtype, SafeTensors, serialize, tensor::TensorView};

use crate::golden::{self, MODELS, device, file, logits_after, values};

/// The model's checkpoint with every number rounded to half precision, stored in a type.
fn rounded(model: &str, dtype: Dtype) -> Vec<u8> {
    let whole = SafeTensors::deserialize(file(model, "model.safetensors")).expect("golden's file");
    let stored: Vec<(String, Vec<usize>, Vec<u8>)> = whole
        .iter()
        .map(|(name, view)| {
            let halves = view.data().as_chunks::<4>().0.iter().map(|b| f16::from_f32(f32::from_le_bytes(*b)));
            let bytes = match dtype {
                Dtype::F16 => halves.flat_map(f16::to_le_bytes).collect(),
                _ => halves.flat_map(|half| half.to_f32().to_le_bytes()).collect(),
            };
            (name.to_owned(), view.shape().to_vec(), bytes)
        })
        .collect();
    let views = stored.iter().map(|(name, shape, bytes)| {
        (name.as_str(), TensorView::new(dtype, shape.clone(), bytes).expect("as many bytes as before"))
    });
    serialize(views, None).expect("serializes")
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

#[golden::test]
fn a_model_of_halves_computes_what_the_same_numbers_do_in_full() {
    for name in MODELS {
        let full = load(name, &rounded(name, Dtype::F32), Precision::F32).expect("loads");
        for dtype in [Dtype::F16, Dtype::F32] {
            let half = load(name, &rounded(name, dtype), Precision::F16).expect("loads");
            assert_eq!(half.precision, Precision::F16);
            let site = WeightSite { layer: 1, matrix: Matrix::MlpDown };
            assert_eq!(values(half.model.weight(site)), values(full.model.weight(site)), "{name}");
            for prompt in ["The mother tongue of Danielle Darrieux is", "a"] {
                let [ours, expected] = [&half, &full].map(|loaded| logits_after(loaded, &loaded.model, prompt));
                let size = expected.iter().fold(0.0f32, |most, x| most.max(x.abs()));
                for (ours, expected) in ours.iter().zip(&expected) {
                    assert!((ours - expected).abs() <= 1e-5 * size, "{name} {dtype:?}: {ours} {expected}");
                }
            }
            let (ours, expected) = (edited(half), edited(full.clone()));
            assert_eq!(ours.steps, expected.steps, "{name}");
            assert!((ours.delta_norm / expected.delta_norm - 1.0).abs() < 1e-3, "{name}: {ours:?} {expected:?}");
        }
    }
}

#[golden::test]
fn a_number_that_no_half_can_hold_is_named() {
    let mut shard = file(MODELS[0], "model.safetensors").to_vec();
    let whole = SafeTensors::deserialize(&shard).expect("a whole file");
    let (name, view) = whole.iter().find(|(_, view)| view.shape().len() == 2).expect("a matrix");
    let (name, at) = (name.to_owned(), view.data().as_ptr().addr() - shard.as_ptr().addr());
    shard[at..at + 4].copy_from_slice(&1e6f32.to_le_bytes());
    assert!(load(MODELS[0], &shard, Precision::F32).is_ok());
    let message = load(MODELS[0], &shard, Precision::F16).err().expect("refused").to_string();
    let told = format!("tensor {name:?} holds 1000000 at element 0, more than half precision can");
    assert!(message.contains(&told), "{message}");
}
