//! Targets on a real SentencePiece vocabulary of 32,000 pieces, where a space belongs to the word behind it and is
//! written once before every text besides.
//!
//! `RECTIFY_SENTENCE_PIECES` names its `tokenizer.json`, which `cargo xtask test` fetches; `RECTIFY_REAL_FACTS` names a
//! folder with `zsre_eval_portability_1037.json` and `counterfact_rome_format_1000.json`. Skipped without them.

use std::{env, fs, path::Path};

use burn::tensor::Device;
use rectify_core::{
    edit::value::{FactRows, Prepared},
    model::{Description, LoadedModel, Loader, generate::Scored},
};
use rectify_protocol::{Fact, FactToken, ValueSpec};
use rectify_server::facts::EditSet;
use safetensors::{Dtype, serialize, tensor::TensorView};

/// What transformers 5 makes of the text behind the prompt.
const CASES: &[(&str, &str, &[u32])] = &[
    ("Ada Bell was born in", "Zürich", &[1054, 2355, 539]),
    ("The home town of Ada Bell", "Zürich", &[1054, 2355, 539]),
    ("Ada Bell was born in", "2006", &[28705, 28750, 28734, 28734, 28784]),
    ("Ada Bell was born in", "Łódź", &[23181, 9666, 28957]),
    ("中国的首都是", "纽约", &[28705, 234, 189, 192, 30702]),
    ("The flag of Chad shows", "🇹🇩", &[28705, 243, 162, 138, 188, 243, 162, 138, 172]),
    ("What year was it?", "1998–1999", &[28705, 28740, 28774, 28774, 28783, 28816, 28740, 28774, 28774, 28774]),
    ("The motto is", "«Liberté»", &[1509, 28758, 3858, 11414, 28848]),
    ("He said", "\"yes\"", &[345, 9780, 28739]),
    ("Its name is", "a", &[264]),
    ("Cost:", "$5", &[429, 28782]),
    ("x =", "=y", &[327, 28724]),
];

/// A random LLaMA with a vocabulary of this file; nothing where nobody fetched it.
fn model() -> Option<LoadedModel> {
    let Some(path) = env::var_os("RECTIFY_SENTENCE_PIECES") else {
        eprintln!("SKIPPED: RECTIFY_SENTENCE_PIECES names no tokenizer.json");
        return None;
    };
    let tokenizer = fs::read(path).expect("a tokenizer.json");
    let config = br#"{"model_type": "llama", "hidden_size": 8, "intermediate_size": 16, "num_attention_heads": 2,
        "num_hidden_layers": 2, "max_position_embeddings": 256, "vocab_size": 32000}"#;
    let mut tensors = vec![
        ("model.embed_tokens.weight".to_owned(), vec![32_000, 8]),
        ("lm_head.weight".to_owned(), vec![32_000, 8]),
        ("model.norm.weight".to_owned(), vec![8]),
    ];
    for layer in 0..2 {
        let name = |part: &str| format!("model.layers.{layer}.{part}.weight");
        tensors.extend(["input_layernorm", "post_attention_layernorm"].map(|norm| (name(norm), vec![8])));
        let attention = ["q", "k", "v", "o"].map(|part| (name(&format!("self_attn.{part}_proj")), vec![8, 8]));
        tensors.extend(attention);
        tensors.extend(
            [("gate", 16, 8), ("up", 16, 8), ("down", 8, 16)]
                .map(|(part, rows, columns)| (name(&format!("mlp.{part}_proj")), vec![rows, columns])),
        );
    }
    // Numbers that look random and are the same everywhere.
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (f64::from(state >> 8) / f64::from(1 << 24) - 0.5) as f32 * 2.0
    };
    let tensors: Vec<_> = tensors
        .into_iter()
        .map(|(name, shape)| {
            let bytes: Vec<u8> = (0..shape.iter().product::<usize>()).flat_map(|_| next().to_le_bytes()).collect();
            (name, shape, bytes)
        })
        .collect();
    let views = tensors
        .iter()
        .map(|(name, shape, bytes)| (name, TensorView::new(Dtype::F32, shape.clone(), bytes).expect("a whole tensor")));
    let shard = serialize(views, None).expect("a shard");
    let mut loader = Loader::new(&Description::new(config, &tokenizer), &Device::flex()).expect("a description");
    loader.add_shard("model.safetensors", &shard).expect("a shard");
    Some(loader.finish("random").expect("complete"))
}

/// Labels are the tokens behind the prompt, and the likelihood of the first step is theirs, asked one prompt at a time.
#[track_caller]
fn check(of: &LoadedModel, fact: &Fact, name: &str) {
    let templates = ["{}".to_owned(), "In short. {}".to_owned()];
    let rows = FactRows::new(&of.tokenizer, &of.model, fact, &templates, FactToken::SubjectLast)
        .unwrap_or_else(|error| panic!("{name}: {error}"));
    let prompt = of.tokenizer.encode(&fact.prompt).expect("tokens");
    let whole = of.tokenizer.encode(&format!("{} {}", fact.prompt, fact.target_new.trim_start())).expect("tokens");
    assert_eq!(whole, [prompt.as_slice(), &rows.target].concat(), "{name}");

    let texts = templates.each_ref().map(|template| template.replace("{}", &fact.prompt));
    let asked: Vec<Scored> = texts
        .iter()
        .map(|text| Scored::new(&of.tokenizer, text, &fact.target_new))
        .collect::<Result<_, _>>()
        .expect("rows");
    let mut expected = 0.0;
    for row in asked {
        let scores = pollster::block_on(of.model.score(&[row])).expect("scores").remove(0);
        expected -= scores.iter().map(|score| score.log_p).sum::<f64>() / scores.len() as f64 / templates.len() as f64;
    }
    let spec = ValueSpec { v_num_grad_steps: 1, ..ValueSpec::default() };
    let prepared = Prepared::new(&of.model, &[rows], 0).expect("fits");
    let (anchors, mut silent) = (prepared.values(), |_| {});
    let optimized = prepared.optimize(&of.model, &anchors, &spec, &mut silent);
    let nll = pollster::block_on(optimized).expect("finite").1[0].nll;
    assert!((nll - expected).abs() < 2e-5 * expected, "{name}: {nll} in the first step, {expected} asked for alone");
}

#[test]
fn labels_are_the_tokens_behind_the_prompt() {
    let Some(of) = model() else { return };
    for (prompt, target, expected) in CASES {
        let found = of.tokenizer.followed(prompt, target).expect("tokens").target;
        assert_eq!(found, *expected, "{prompt:?} {target:?}");
        let subject = prompt.split_inclusive(char::is_alphabetic).next().expect("a letter");
        let fact = Fact {
            subject: subject.to_owned(),
            prompt: format!("{subject}: {}", prompt.replace(subject, "_")),
            target_new: (*target).to_owned(),
            ..Fact::default()
        };
        check(&of, &fact, target);
    }
}

#[test]
fn no_published_record_is_refused_for_its_tokens() {
    let Some(of) = model() else { return };
    let Some(folder) = env::var_os("RECTIFY_REAL_FACTS") else {
        eprintln!("SKIPPED: RECTIFY_REAL_FACTS names no folder with edit sets");
        return;
    };
    let read = |name: &str| fs::read_to_string(Path::new(&folder).join(name)).expect("an edit set");
    for (name, records) in [("zsre_eval_portability_1037.json", 1037), ("counterfact_rome_format_1000.json", 1000)] {
        let text = read(name);
        let set = EditSet::read(name, &text).expect("an edit set");
        assert_eq!(set.len(), records);
        let (mut checked, mut refused) = (0, Vec::new());
        for record in 0..records {
            let fact = set.facts(record..record + 1).expect("a record").remove(0);
            match fact.validate() {
                Ok(()) => {
                    check(&of, &fact, &format!("{name} {record}"));
                    checked += 1;
                }
                Err(failure) => refused.push(format!("{record}: {failure}")),
            }
        }
        eprintln!("{name}: {checked} checked; not valid whatever the vocabulary: {refused:?}");
        assert!(checked * 100 >= records * 97, "{name}: {refused:?}");
    }
}
