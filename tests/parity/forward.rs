use rectify_core::model::{At, Cache, Capture, Frame, NoTap, Site};

use crate::golden::{self, Golden, MODELS, strings, values};

/// Recommended for hidden states, keys and logits.
const TOLERANCE: f64 = 2e-5;

#[golden::test]
fn every_layer_answers_like_the_reference() {
    for golden in MODELS.map(Golden::open) {
        let loaded = golden.model();
        let (model, shape) = (&loaded.model, loaded.model.shape());
        for s in 0..3 {
            let ids = golden.ids(&format!("forward.s{s}.ids"));
            let sites = |at| (0..shape.layers).map(move |layer| Site { layer, at });
            let all: Vec<Site> = sites(At::MlpKey).chain(sites(At::ResidPost)).collect();
            let mut capture = Capture::new(&all);
            let mut past = Cache::empty(1, shape.layers);
            let (hidden, _) = model.extend(&[&ids], &mut past, &mut capture);
            let mut captured = |at| sites(at).flat_map(|site| values(capture.take(site))).collect::<Vec<f32>>();
            golden.check(&format!("forward.s{s}.key"), &captured(At::MlpKey), TOLERANCE);
            golden.check(&format!("forward.s{s}.hidden"), &captured(At::ResidPost), TOLERANCE);
            let logits = values(model.logits(hidden.flatten(0, 1)));
            golden.check(&format!("forward.s{s}.logits"), &logits, TOLERANCE);
        }
    }
}

#[golden::test]
fn a_pass_can_be_cut_at_any_layer_and_at_any_token() {
    for golden in MODELS.map(Golden::open) {
        let loaded = golden.model();
        let (model, layers) = (&loaded.model, loaded.model.shape().layers);
        let ids = golden.ids("forward.s2.ids");
        for cut in [1, 7, ids.len() - 1] {
            let mut past = Cache::empty(1, layers);
            model.extend(&[&ids[..cut]], &mut past, &mut NoTap);
            let frame = Frame::new(&past, &[ids.len() - cut], &model.device());
            let hidden = model.embed(&ids[cut..], &frame);
            let hidden = model.run(0..2, hidden, &frame, &mut past, &mut NoTap);
            let hidden = model.run(2..layers, hidden, &frame, &mut past, &mut NoTap);
            let logits = values(model.logits(hidden.flatten(0, 1)));
            let vocab = model.shape().vocab;
            let expected = golden.f64s("forward.s2.logits");
            let worst = logits
                .iter()
                .zip(&expected[cut * vocab..])
                .map(|(ours, theirs)| (f64::from(*ours) - theirs).abs())
                .fold(0.0, f64::max);
            let largest = expected.iter().fold(0.0f64, |max, value| max.max(value.abs()));
            assert!(worst <= TOLERANCE * largest, "{}: cut at {cut}: {:.2e}", golden.name, worst / largest);
        }
    }
}

#[golden::test]
fn greedy_continuations_are_the_reference_s_in_any_batch() {
    for golden in MODELS.map(Golden::open) {
        let loaded = golden.model();
        let prompts: Vec<Vec<u32>> = (0..3).map(|s| golden.ids(&format!("forward.s{s}.ids"))).collect();
        let together = pollster::block_on(loaded.model.greedy(&prompts, 16, &[])).expect("fits");
        for (s, prompt) in prompts.iter().enumerate() {
            let expected = golden.ids(&format!("forward.s{s}.greedy"));
            let alone = pollster::block_on(loaded.model.greedy(std::slice::from_ref(prompt), 16, &[])).expect("fits");
            assert_eq!(alone[0], expected, "{} s{s} alone", golden.name);
            assert_eq!(together[s], expected, "{} s{s} in a batch", golden.name);
        }
    }
}

#[golden::test]
fn a_continuation_ends_before_the_first_token_that_ends_a_text() {
    for golden in MODELS.map(Golden::open) {
        let model = golden.model().model;
        let prompts: Vec<Vec<u32>> = (0..3).map(|s| golden.ids(&format!("forward.s{s}.ids"))).collect();
        let end = golden.ids("forward.s0.greedy")[5];
        let texts = pollster::block_on(model.greedy(&prompts, 16, &[end])).expect("fits");
        for (s, text) in texts.iter().enumerate() {
            let whole = golden.ids(&format!("forward.s{s}.greedy"));
            let len = whole.iter().position(|id| *id == end).unwrap_or(whole.len());
            assert_eq!(*text, whole[..len], "{} s{s}", golden.name);
        }
        assert!(texts[0].len() <= 5, "{}", golden.name);
    }
}

#[golden::test]
fn texts_have_the_reference_s_tokens() {
    for golden in MODELS.map(Golden::open) {
        let tokenizer = golden.model().tokenizer;
        for case in golden.json["tokenizer"].as_array().expect("cases") {
            let text = case["text"].as_str().expect("text");
            let ids: Vec<u32> =
                case["ids"].as_array().expect("ids").iter().map(|id| id.as_u64().unwrap() as u32).collect();
            assert_eq!(tokenizer.encode(text).expect("encodes"), ids, "{} {text:?}", golden.name);
            let decoded = case["decoded_without_special"].as_str().expect("decoded");
            assert_eq!(tokenizer.decode(&ids).expect("decodes"), decoded, "{}", golden.name);
        }
        assert_eq!(strings(&golden.json["forward"]["texts"]).len(), 3);
    }
}
