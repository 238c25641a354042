//! Files that are not what they should be: each is refused, and the message says what and where.

use rectify_core::{
    edit::moments::{Corpus, Moment},
    model::{Description, LoadedModel, Loader},
};
use safetensors::{Dtype, serialize, tensor::TensorView};

use crate::golden::{self, Golden, device, file};

const MODEL: &str = "gpt2-tiny";

fn loader(config: &str) -> rectify_core::Result<Loader> {
    Loader::new(&Description::new(config.as_bytes(), file(MODEL, "tokenizer.json")), &device())
}

fn config() -> String {
    String::from_utf8(file(MODEL, "config.json").to_vec()).expect("text")
}

#[track_caller]
fn check_shard(bytes: &[u8], complaint: &str) {
    let error = loader(&config()).expect("reads").add_shard("model.safetensors", bytes).expect_err(complaint);
    let message = error.to_string();
    assert!(message.contains("model.safetensors") && message.contains(complaint), "{message}");
}

fn with_header(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

#[golden::test]
fn a_damaged_checkpoint_is_refused() {
    let whole = file(MODEL, "model.safetensors");
    check_shard(&whole[..whole.len() / 2], "is not a whole safetensors file");
    check_shard(&whole[..5], "is not a whole safetensors file");
    check_shard(&[], "is not a whole safetensors file");
    check_shard(&(1u64 << 63).to_le_bytes(), "is not a whole safetensors file");
    check_shard(b"<!doctype html><title>404</title>", "is a web page");
    check_shard(b"\x80\x02pickle", "only safetensors is read");
    check_shard(b"PK\x03\x04zip", "only safetensors is read");
    check_shard(b"\x93NUMPY", "only safetensors is read");
}

#[golden::test]
fn overlapping_and_gapped_tensors_are_refused() {
    let two = |first: [usize; 2], second: [usize; 2]| {
        let entry =
            |range: [usize; 2]| format!(r#"{{"dtype":"F32","shape":[2],"data_offsets":[{},{}]}}"#, range[0], range[1]);
        format!(r#"{{"a":{},"b":{}}}"#, entry(first), entry(second))
    };
    check_shard(&with_header(&two([0, 8], [4, 12]), &[0; 12]), "is not a whole safetensors file");
    check_shard(&with_header(&two([0, 8], [16, 24]), &[0; 24]), "is not a whole safetensors file");
    let huge = r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296,4294967296],"data_offsets":[0,4]}}"#;
    check_shard(&with_header(huge, &[0; 4]), "is not a whole safetensors file");
}

#[golden::test]
fn numbers_that_are_none_are_named() {
    let mut values = [0.0f32; 6];
    values[4] = f32::NAN;
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let view = TensorView::new(Dtype::F32, vec![6], &bytes).unwrap();
    check_shard(&serialize([("h.0.ln_1.weight", view)], None).unwrap(), "\"h.0.ln_1.weight\" holds NaN at element 4");
    let view = TensorView::new(Dtype::I32, vec![6], &bytes).unwrap();
    check_shard(&serialize([("h.0.ln_1.weight", view)], None).unwrap(), "is I32");
}

#[golden::test]
fn a_checkpoint_that_does_not_fit_its_config_is_refused() {
    let finish = |config: &str| {
        let mut loader = loader(config).expect("reads");
        loader.add_shard("model.safetensors", file(MODEL, "model.safetensors")).expect("reads");
        loader.finish(MODEL).map(|_| ()).expect_err("refused").to_string()
    };
    let message = finish(&config().replace("\"n_inner\": 256", "\"n_inner\": 128"));
    assert!(
        message.contains("mlp.c_fc.weight") && message.contains("[64, 256]") && message.contains("[64, 128]"),
        "{message}"
    );
    let message = finish(&config().replace("\"n_layer\": 4", "\"n_layer\": 5"));
    assert!(message.contains("no tensor") && message.contains("h.4."), "{message}");
    let message = finish(&config().replace("\"vocab_size\": 1024", "\"vocab_size\": 512"));
    assert!(message.contains("wte.weight"), "{message}");
}

#[golden::test]
fn statistics_are_known_by_their_content_and_belong_to_one_model_and_layer() {
    let loaded = Golden::open(MODEL).model();
    let corpus = Corpus { name: "text".into(), hash: "0".into() };
    let moment = Golden::open(MODEL).moment(1);
    let good = moment.to_bytes(&loaded, 1, &corpus, false).unwrap();
    let small = moment.to_bytes(&loaded, 1, &corpus, true).unwrap();
    assert!(small.len() < good.len() * 6 / 10);
    for bytes in [&good, &small] {
        assert!(Moment::from_bytes("moment", bytes, &loaded, 1).is_ok());
    }
    let check = |of: &LoadedModel, layer, bytes: &[u8], complaint: &str| {
        // The name promises statistics whatever the bytes are.
        let error = Moment::from_bytes("moment.1.safetensors", bytes, of, layer).err().expect(complaint).to_string();
        assert!(error.contains("moment.1.safetensors") && error.contains(complaint), "{error}\nlacks {complaint:?}");
    };
    check(&loaded, 2, &good, "was made for layer 1, not 2");
    let other = LoadedModel { hash: "of another model".into(), ..loaded.clone() };
    check(&other, 1, &good, "was made for the model with hash");
    check(&Golden::open("llama-tiny").model(), 1, &good, "this model needs F64 or F32 [176, 176]");
    check(&loaded, 1, b"PK\x03\x04mom2.npz", "a zip archive");
    check(&loaded, 1, b"\x93NUMPY\x01\x00", "a numpy array");
    check(&loaded, 1, b"\x80\x04\x95\x00", "a Python pickle");
    check(&loaded, 1, &good[..good.len() - 8], "moment.1.safetensors");
    check(&loaded, 1, file(MODEL, "model.safetensors"), "has no tensor \"moment\"");
    let broken = Moment::given(vec![f64::NAN; 256 * 256], 256, 1).to_bytes(&loaded, 1, &corpus, false).unwrap();
    check(&loaded, 1, &broken, "holds NaN at element 0");
    let saying = |change: &dyn Fn(&mut Vec<f64>)| {
        let mut matrix = moment.matrix().to_vec();
        change(&mut matrix);
        Moment::given(matrix, 256, 1).to_bytes(&loaded, 1, &corpus, false).unwrap()
    };
    check(&loaded, 1, &saying(&|matrix| matrix.fill(0.0)), "no positive number on its diagonal");
    check(&loaded, 1, &saying(&|matrix| matrix[257] = -9.0), "a mean of squares is not negative");
    check(&loaded, 1, &saying(&|matrix| matrix[1] = 9e9), "is not symmetric: [1, 0] and [0, 1] differ");
    // A file begins with its header's length, whose bytes are sometimes those that other formats begin with.
    for name in (0..200).map(|n| "c".repeat(n)) {
        let corpus = Corpus { name, hash: "0".into() };
        let bytes = moment.to_bytes(&loaded, 1, &corpus, true).unwrap();
        assert!(Moment::from_bytes("moment", &bytes, &loaded, 1).is_ok(), "a header of {:?}", &bytes[..2]);
    }

    let (read, _) = Moment::from_bytes("moment", &good, &loaded, 1).unwrap();
    let factor = moment.factor_to_bytes().unwrap();
    assert!(read.take_factor("factor", &factor).unwrap());
    assert!(!Golden::open(MODEL).moment(2).take_factor("factor", &factor).unwrap(), "another layer's factor");
}

#[golden::test]
fn a_token_before_every_text_that_has_no_row_in_the_embedding_is_refused() {
    let text = String::from_utf8(file("llama-tiny", "tokenizer.json").to_vec()).expect("text");
    let tokenizer = text.replace("\"ids\": [0]", "\"ids\": [99998]").replace("\"ids\":[0]", "\"ids\":[99998]");
    let tokenizer = if tokenizer == text { text.replace("        0\n", "        99998\n") } else { tokenizer };
    assert_ne!(tokenizer, text, "the post-processor names an id");
    let description = Description::new(file("llama-tiny", "config.json"), tokenizer.as_bytes());
    let mut loader = Loader::new(&description, &device()).expect("reads");
    loader.add_shard("model.safetensors", file("llama-tiny", "model.safetensors")).expect("reads");
    let message = loader.finish("x").map(drop).expect_err("refused").to_string();
    assert!(message.contains("token 99998 before every text"), "{message}");
}

#[golden::test]
fn a_config_of_another_kind_is_refused() {
    for (from, to, complaint) in [
        ("\"model_type\": \"gpt2\"", "\"model_type\": \"t5\"", "model_type is \"t5\""),
        ("\"n_head\": 4", "\"n_head\": 5", "n_head 5 does not divide n_embd 64"),
        ("\"n_embd\": 64", "\"n_embd\": \"wide\"", "config.json"),
        ("\"gelu_new\"", "\"relu\"", "activation_function is \"relu\""),
    ] {
        let message = loader(&config().replace(from, to)).map(|_| ()).expect_err(complaint).to_string();
        assert!(message.contains(complaint), "{message}");
    }
    assert!(loader("{").is_err());
    assert!(Loader::shard_names(b"not json").is_err());
}
