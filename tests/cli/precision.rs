//! `--precision`: what it stores, what reports say of it, and what it refuses.

use serde_json::{Value, json};

use crate::desk::{Desk, check_refused, document, fact, golden};

#[test]
fn reports_name_the_precision_and_edits_hardly_differ() {
    let (desk, model) = (Desk::new(&json!([fact()])), golden("gpt2-tiny"));
    let contexts = desk.contexts();
    let written = |precision: &str| {
        let report = document(&desk.edit(&model, &contexts, &["--json", "--precision", precision]));
        let size = report["operations"][0]["delta_norm"].as_f64().expect("a number");
        (report["model"]["precision"].clone(), size)
    };
    let (named, full) = written("f32");
    assert_eq!(named, Value::Null, "32 bits need not be named");
    for (precision, allowed) in [("f16", 1e-2), ("int8", 0.2)] {
        let (named, size) = written(precision);
        assert_eq!(named, precision);
        assert!((size / full - 1.0).abs() < allowed, "{precision}: {size}, {full} in 32 bits");
        assert_ne!(size.to_bits(), full.to_bits(), "{precision} rounds");
    }
}

#[test]
fn a_precision_that_is_none_or_of_no_use_is_refused() {
    let model = golden("gpt2-tiny");
    let ask = ["ask", "--model", &model, "--prompt", "The", "--precision"];
    check_refused(&[&ask[..], &["nonsense"]].concat(), &["unknown precision \"nonsense\"", "f32, f16, int8"]);
    check_refused(&[&ask[..], &["int4"]].concat(), &["unknown precision \"int4\"", "did you mean \"int8\"?"]);
    check_refused(&["models", "list", "--precision", "int8"], &["--precision is for commands that read a model"]);
}
