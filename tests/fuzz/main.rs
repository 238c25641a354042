//! Files as users bring them, and then broken: every reader says what is wrong, none panics, and none asks for memory
//! that the file's size does not explain.
//!
//! `cargo xtask test` gives each reader a few seconds, the same ones every time; `cargo xtask fuzz --minutes N` goes on
//! with others. A file that broke something is kept, and its place said.

mod meter;
mod mutate;

use std::{
    fs,
    path::PathBuf,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use burn::tensor::Device;
use mutate::{Change, Format, mutate};
use proptest::{
    prelude::any,
    test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner},
};
use rectify_core::{
    Session,
    model::{Description, Loader, Matrix, WeightSite},
    tokenizer::Tokenizer,
};
use rectify_figures::{Sweep, html::document};
use rectify_protocol::{Command, SweepSpec};
use rectify_server::facts::EditSet;
use safetensors::{Dtype, tensor::TensorView};

/// One reader at a time: what a reader asks for is counted for the whole program.
static TURN: Mutex<()> = Mutex::new(());

/// Seconds for one reader.
fn budget() -> Duration {
    let seconds = std::env::var("RECTIFY_FUZZ_SECONDS").ok().map(|text| text.parse().expect("RECTIFY_FUZZ_SECONDS"));
    Duration::from_secs(seconds.unwrap_or(6))
}

/// Breaks `seeds` in one way after the other and hands them to `reader`.
fn fuzz(name: &str, format: Format, seeds: &[Vec<u8>], reader: impl Fn(usize, &[u8])) {
    /// What a reader may hold beside the file: threads' stacks and buffers of matrix products.
    const FLOOR: usize = 48 << 20;
    /// A tensor is read, widened, turned round and hashed; a JSON value takes tens of bytes for a digit.
    const TIMES: usize = 100;
    const SLOWEST: Duration = Duration::from_secs(10);

    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    for (seed, bytes) in seeds.iter().enumerate() {
        reader(seed, bytes); // As they are they are read, and what is made once is made.
    }
    let strategy = (0..seeds.len(), proptest::collection::vec(any::<Change>(), 1..6));
    let (started, mut files) = (Instant::now(), 0);
    for round in 0u64.. {
        if started.elapsed() > budget() {
            break;
        }
        let random: [u8; 32] = std::array::from_fn(|i| round.to_le_bytes()[i % 8] ^ i as u8);
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &random);
        let config = Config { cases: 16, failure_persistence: None, ..Config::default() };
        let tried = TestRunner::new_with_rng(config, rng).run(&strategy, |(seed, changes)| {
            let broken = mutate(format, &seeds[seed], &changes);
            let began = Instant::now();
            let ((), held) = meter::bytes_of(|| reader(seed, &broken));
            if held > FLOOR + TIMES * broken.len() {
                return Err(TestCaseError::fail(format!("held {held} bytes for a file of {}", broken.len())));
            }
            if began.elapsed() > SLOWEST {
                return Err(TestCaseError::fail(format!("took {:?}", began.elapsed())));
            }
            Ok(())
        });
        if let Err(error) = tried {
            let TestError::Fail(reason, (seed, changes)) = error else { panic!("{name}: {error}") };
            let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("fuzz-{name}"));
            fs::write(&path, mutate(format, &seeds[seed], &changes)).expect("a folder for what broke");
            panic!("{name}, seed {seed}, round {round}: {reason}; the file is {}", path.display());
        }
        files += 16;
    }
    println!("{name}: {files} broken files");
}

fn golden(path: &str) -> Vec<u8> {
    let path = format!("{}/golden/{path}", env!("CARGO_MANIFEST_DIR"));
    fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn bundled(path: &str) -> Vec<u8> {
    let path = format!("{}/../static/{path}", env!("CARGO_MANIFEST_DIR"));
    fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

const FAMILIES: [&str; 5] = ["gpt2", "gptj", "llama-rope-llama3", "qwen2", "qwen3"];

/// Loads a checkpoint; if it is read, it also answers.
fn load_and_ask(config: &[u8], generation: Option<&[u8]>, tokenizer: &[u8], weights: &[u8]) {
    let files = Description { generation_config: generation, ..Description::new(config, tokenizer) };
    let Ok(mut loader) = Loader::new(&files, &Device::flex()) else { return };
    let Ok(()) = loader.add_shard("model.safetensors", weights) else { return };
    let Ok(loaded) = loader.finish("fuzzed") else { return };
    let mut session = Session::new(Device::flex(), "flex", || 0.0);
    session.open(loaded);
    let ask = Command::Ask { prompt: "a".into(), tokens: 2, top: 3 };
    let _ = pollster::block_on(session.handle(ask, &mut |_| {}));
}

#[test]
fn config_json() {
    let seeds = FAMILIES.map(|family| golden(&format!("families/{family}/config.json")));
    let weights = FAMILIES.map(|family| golden(&format!("families/{family}/model.safetensors")));
    let tokenizer = golden("families/tokenizer.json");
    fuzz("config.json", Format::Json, &seeds, |seed, bytes| load_and_ask(bytes, None, &tokenizer, &weights[seed]));
}

#[test]
fn generation_config_json() {
    let seeds = [br#"{"eos_token_id": [1, 2], "bos_token_id": 0, "do_sample": true}"#.to_vec()];
    let [config, weights] = ["config.json", "model.safetensors"].map(|file| golden(&format!("families/gpt2/{file}")));
    let tokenizer = golden("families/tokenizer.json");
    fuzz("generation_config.json", Format::Json, &seeds, |_, bytes| {
        load_and_ask(&config, Some(bytes), &tokenizer, &weights);
    });
}

#[test]
fn tokenizer_json() {
    let seeds = ["families", "gpt2-tiny", "llama-tiny"].map(|folder| golden(&format!("{folder}/tokenizer.json")));
    fuzz("tokenizer.json", Format::Json, &seeds, |_, bytes| {
        let Ok(tokenizer) = Tokenizer::from_json(bytes) else { return };
        for text in ["", "a", "Zürich, 2006: 東京 😀", "  two  spaces \u{0}"] {
            let _ = tokenizer.encode(text).map(|ids| tokenizer.decode(&ids));
            let _ = tokenizer.followed("The city of", text);
            let _ = tokenizer.token_before(text, text.len() / 2);
        }
    });
}

#[test]
fn model_safetensors() {
    let seeds = FAMILIES.map(|family| golden(&format!("families/{family}/model.safetensors")));
    let configs = FAMILIES.map(|family| golden(&format!("families/{family}/config.json")));
    let tokenizer = golden("families/tokenizer.json");
    fuzz("model.safetensors", Format::Safetensors, &seeds, |seed, bytes| {
        load_and_ask(&configs[seed], None, &tokenizer, bytes);
    });
}

#[test]
fn edit_sets() {
    let zsre =
        r#"[{"subject": "Ada", "src": "Ada was born in", "alt": "Oslo", "answers": ["Leeds"], "rephrase": "Where"}]"#;
    let recent = r#"{"prompt": "Ada lives in", "subject": "Ada", "target_new": ["Rome", "Roma"], "portability": {}}"#;
    let seeds = [bundled("facts/examples.json"), zsre.into(), [recent, recent].join("\n").into()];
    fuzz("edit set", Format::JsonLines, &seeds, |_, bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else { return };
        let Ok(set) = EditSet::read("facts.json", text) else { return };
        let _ = set.usable(0..set.len());
    });
}

#[test]
fn rows_of_a_sweep() {
    let seeds = [include_bytes!("rows.jsonl").to_vec()];
    fuzz("rows", Format::JsonLines, &seeds, |_, bytes| {
        let mut sweep = Sweep::new("sweep");
        sweep.add_file("rows.jsonl", &String::from_utf8_lossy(bytes));
        let _ = document("Report", &[sweep]);
    });
}

#[test]
fn settings_of_a_sweep() {
    let seeds =
        ["demo-figure-3", "demo-figure-7", "gpt2-xl-figure-8"].map(|name| bundled(&format!("sweeps/{name}.toml")));
    fuzz("sweep.toml", Format::Text, &seeds, |_, bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else { return };
        let _ = SweepSpec::from_toml("sweep.toml", text);
    });
}

#[test]
fn deltas_statistics_and_what_mend_learnt() {
    let [config, tokenizer, weights, moment, learnt] =
        ["config.json", "tokenizer.json", "model.safetensors", "moment.1.safetensors", "mend.safetensors"]
            .map(|file| bundled(&format!("models/demo-nano/{file}")));
    let mut loader = Loader::new(&Description::new(&config, &tokenizer), &Device::flex()).expect("reads");
    loader.add_shard("model.safetensors", &weights).expect("reads");
    let mut session = Session::new(Device::flex(), "flex", || 0.0);
    session.open(loader.finish("demo-nano").expect("complete"));
    let model = session.model().expect("loaded");
    let ([rows, columns], name) = {
        let site = WeightSite { layer: 1, matrix: Matrix::MlpDown };
        (model.weight(site).dims(), model.name(site))
    };
    let numbers = 0.5f32.to_le_bytes().repeat(rows * columns);
    let shape = if model.stores_transposed() { vec![columns, rows] } else { vec![rows, columns] };
    let view = TensorView::new(Dtype::F32, shape, &numbers).expect("bytes of this shape");
    let delta = safetensors::serialize([(name, view)], None).expect("a file");
    let seeds = [delta, moment, learnt];
    fuzz("delta, moment and mend.safetensors", Format::Safetensors, &seeds, |seed, bytes| {
        let mut session = session.fork();
        let _ = match seed {
            0 => session.apply_delta("delta.safetensors", bytes),
            1 => session.add_moment(1, "moment.1.safetensors", bytes).map(drop),
            _ => session.add_hypernetwork("mend.safetensors", bytes),
        };
    });
}
