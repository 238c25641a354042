use burn::tensor::Tensor;
use rectify_core::{
    edit::{Delta, WeightDelta},
    metrics::{ask, compare},
    model::{Matrix, Model, WeightSite},
};
use rectify_protocol::{Fact, Neighbor};
use serde_json::Value;

use crate::golden::{self, Golden, MODELS};

fn fact(record: &Value) -> Fact {
    let text = |name: &str| record[name].as_str().expect("text").to_owned();
    Fact {
        subject: text("subject"),
        prompt: text("src"),
        target_new: text("alt"),
        target_true: None,
        paraphrases: vec![text("rephrase")],
        neighbors: vec![Neighbor { prompt: text("loc"), target: Some(text("loc_ans")) }],
    }
}

fn numbers(list: &Value) -> Vec<f64> {
    list.as_array().expect("a list").iter().map(|value| value.as_f64().expect("a number")).collect()
}

#[golden::test]
fn token_accuracies_are_the_reference_s_before_and_after_every_edit() {
    for golden in MODELS.map(Golden::open) {
        let loaded = golden.model();
        let pristine = &loaded.model;
        let layer = golden.json["rome"]["layer"].as_u64().expect("layer") as usize;
        let metrics = &golden.json["edit_metrics"];
        let facts: Vec<Fact> = metrics["records"].as_array().expect("records").iter().map(fact).collect();
        let report = |model: &Model, fact: &Fact| {
            let before = pollster::block_on(ask(pristine, &loaded.tokenizer, fact)).expect("answers");
            let after = pollster::block_on(ask(model, &loaded.tokenizer, fact)).expect("answers");
            compare(fact, before, after)
        };
        let before = &metrics["before"];
        let (reliability, generalization) = (numbers(&before["reliability"]), numbers(&before["generalization"]));
        for (i, fact) in facts.iter().enumerate() {
            let unedited = report(pristine, fact);
            assert_eq!(unedited.reliability, reliability[i], "{} {i}", golden.name);
            assert_eq!(unedited.generalization, Some(generalization[i]), "{} {i}", golden.name);
            assert_eq!(unedited.locality, Some(1.0), "nothing changed");
        }
        for after in metrics["after"].as_array().expect("edits") {
            let delta: Tensor<2> = golden.matrix(&format!("{}.dW", after["edit"].as_str().expect("edit")));
            let delta = if pristine.stores_transposed() { delta.transpose() } else { delta };
            let site = WeightSite { layer, matrix: Matrix::MlpDown };
            let edited = pristine.apply(&[WeightDelta { site, delta: Delta::Dense(delta) }]).expect("fits");
            let (reliability, generalization) = (numbers(&after["reliability"]), numbers(&after["generalization"]));
            for (i, fact) in facts.iter().enumerate() {
                let edited = report(&edited, fact);
                assert_eq!(edited.reliability, reliability[i], "{} {} {i}", golden.name, after["edit"]);
                assert_eq!(edited.generalization, Some(generalization[i]), "{} {} {i}", golden.name, after["edit"]);
                let ids = |section: &Value| section["locality_pred_ids"][i].clone();
                let pairs = ids(before).as_array().expect("ids").clone();
                let same = pairs.iter().zip(ids(after).as_array().expect("ids")).filter(|(a, b)| a == b).count();
                assert_eq!(
                    edited.locality,
                    Some(same as f64 / pairs.len() as f64),
                    "{} {}",
                    golden.name,
                    after["edit"]
                );
            }
        }
    }
}
