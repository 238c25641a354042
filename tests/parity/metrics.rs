use burn::tensor::Tensor;
use rectify_core::{
    edit::{Delta, WeightDelta},
    metrics::{ask, compare, predict, scores},
    model::{Matrix, Model, WeightSite, generate::Scored},
};
use rectify_protocol::{Consequence, Fact, Neighbor};
use serde_json::Value;

use crate::golden::{self, Golden, MODELS};

fn fact(record: &Value) -> Fact {
    let text = |name: &str| record[name].as_str().expect("text").to_owned();
    Fact {
        subject: text("subject"),
        prompt: text("src"),
        target_new: text("alt"),
        paraphrases: vec![text("rephrase")],
        neighbors: vec![Neighbor { prompt: text("loc"), target: Some(text("loc_ans")) }],
        ..Fact::default()
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
            let before = pollster::block_on(ask(pristine, &loaded.tokenizer, &loaded.ends, fact)).expect("answers");
            let after = pollster::block_on(ask(model, &loaded.tokenizer, &loaded.ends, fact)).expect("answers");
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

/// New and true target change places: what was gained is lost.
#[golden::test]
fn probability_scores_compare_the_two_targets_per_token() {
    for golden in MODELS.map(Golden::open) {
        let loaded = golden.model();
        let fact = Fact {
            subject: "Danielle Darrieux".into(),
            prompt: "The mother tongue of Danielle Darrieux is".into(),
            target_new: "English and more".into(),
            target_true: Some("French".into()),
            paraphrases: vec!["Danielle Darrieux is a native speaker of".into(), "Danielle Darrieux speaks".into()],
            neighbors: vec![
                Neighbor { prompt: "Michel Rocard is a native speaker of".into(), target: Some("French".into()) },
                // Its answer is not the true target, so it has no part in NS.
                Neighbor { prompt: "The river flows to the".into(), target: Some("sea".into()) },
            ],
            consequences: vec![Consequence { prompt: "Darrieux' country is".into(), target: "England".into() }],
            ..Fact::default()
        };
        let ask = |fact: &Fact| {
            let model = std::slice::from_ref(&loaded.model);
            let predictions = pollster::block_on(predict(model, &loaded.tokenizer, fact)).expect("predicts").remove(0);
            scores(&predictions, &predictions)
        };
        let per_token = |prompt: &str, target: &str| {
            let row = Scored::new(&loaded.tokenizer, prompt, target).expect("a target");
            let scores = pollster::block_on(loaded.model.score(&[row])).expect("scores").remove(0);
            (scores.iter().map(|score| score.log_p).sum::<f64>() / scores.len() as f64).exp()
        };
        let gap = |prompt: &str| per_token(prompt, "English and more") - per_token(prompt, "French");

        let found = ask(&fact);
        let probability = found.probability.expect("both targets are known");
        let gaps: Vec<f64> = fact.paraphrases.iter().map(|prompt| gap(prompt)).collect();
        let share = gaps.iter().filter(|gap| **gap > 0.0).count() as f64 / 2.0;
        let neighbor = gap(&fact.neighbors[0].prompt);
        // Rows in one batch or each by itself: the same up to rounding.
        let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-6, "{}: {a} {b}", golden.name);
        close(probability.em, gap(&fact.prompt));
        close(probability.pm.unwrap(), gaps.iter().sum::<f64>() / 2.0);
        close(probability.nm.unwrap(), -neighbor);
        assert_eq!(probability.es, f64::from(u8::from(probability.em > 0.0)));
        assert_eq!((probability.ps, probability.ns), (Some(share), Some(f64::from(u8::from(neighbor < 0.0)))));
        assert!(found.portability.is_some());

        let target_true = Some(fact.target_new.clone());
        let turned = ask(&Fact { target_new: "French".into(), target_true, ..fact.clone() });
        let turned = turned.probability.expect("both targets are known");
        close(turned.em, -probability.em);
        close(turned.pm.unwrap(), -probability.pm.unwrap());
        assert_eq!(
            (turned.es, turned.ns),
            (1.0 - probability.es, None),
            "the neighbour's answer is now the new target"
        );

        let bare = ask(&Fact { target_true: None, consequences: vec![], ..fact.clone() });
        assert_eq!((bare.probability, bare.portability), (None, None));
    }
}
