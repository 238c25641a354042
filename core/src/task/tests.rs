//! Laws of every task, and cases: a document, replies, a verdict. A new case is an entry in `tests/tasks/cases`.

use std::collections::BTreeSet;

use rectify_protocol::{Continuation, Tally, TaskScores, Verdict};
use serde_json::Value;

use super::*;

/// Every task, with a small file of its format and its cases.
const FILES: &[(&str, &str, &str)] = &[
    ("reasoning", demo::GSM8K, include_str!("../../../tests/tasks/cases/reasoning.json")),
    ("reasoning_unaided", demo::GSM8K, include_str!("../../../tests/tasks/cases/reasoning_unaided.json")),
    ("nli", demo::RTE, include_str!("../../../tests/tasks/cases/nli.json")),
    ("open_qa", demo::NQ, include_str!("../../../tests/tasks/cases/open_qa.json")),
    ("open_qa_released", demo::NQ, include_str!("../../../tests/tasks/cases/open_qa.json")),
    ("closed_qa", demo::BOOLQ, include_str!("../../../tests/tasks/cases/closed_qa.json")),
    ("dialogue", demo::MUTUAL, include_str!("../../../tests/tasks/cases/dialogue.json")),
    ("summarization", demo::SAMSUM, include_str!("../../../tests/tasks/cases/summarization.json")),
    ("ner", demo::CONLL, include_str!("../../../tests/tasks/cases/ner.json")),
    ("sentiment", demo::SST2, include_str!("../../../tests/tasks/cases/sentiment.json")),
];

mod demo {
    pub const GSM8K: &str = include_str!("../../../static/tasks/demo/gsm8k_test.jsonl");
    pub const RTE: &str = include_str!("../../../static/tasks/demo/rte_test.tsv");
    pub const NQ: &str = include_str!("../../../static/tasks/demo/nq_open_test.jsonl");
    pub const BOOLQ: &str = include_str!("../../../static/tasks/demo/boolq_test.jsonl");
    pub const MUTUAL: &str = include_str!("../../../static/tasks/demo/mutual_test.jsonl");
    pub const SAMSUM: &str = include_str!("../../../static/tasks/demo/samsum_test.json");
    pub const CONLL: &str = include_str!("../../../static/tasks/demo/conll_test.txt");
    pub const SST2: &str = include_str!("../../../static/tasks/demo/sst2_test.txt");
}

/// The prompts of a file, one after the other.
#[track_caller]
pub(super) fn prompts(task: &str, text: &str) -> Vec<String> {
    read(task, text).iter().flat_map(|question| question.prompts()).collect()
}

/// The right answers of a file, one after the other.
#[track_caller]
pub(super) fn answers(task: &str, text: &str) -> Vec<String> {
    read(task, text).iter().flat_map(|question| question.answers()).collect()
}

/// What reading a file named `f` complains about.
#[track_caller]
pub(super) fn complaint(task: &str, text: &str) -> String {
    match (Task::find(task).unwrap().read)("f", text) {
        Ok(questions) => panic!("{} questions were read", questions.len()),
        Err(error) => error.to_string(),
    }
}

#[track_caller]
fn read(task: &str, text: &str) -> Questions {
    (Task::find(task).unwrap().read)("f", text).unwrap()
}

/// Scores over a file when every prompt is replied to in this way.
fn scores(task: &str, text: &str, reply: impl Fn(&str) -> Continuation) -> TaskScores {
    let judge = |question: Box<dyn Question>| {
        let replies: Vec<Continuation> = question.answers().iter().map(|answer| reply(answer)).collect();
        question.judge(&replies)
    };
    TaskScores::of(&read(task, text).into_iter().map(judge).collect::<Vec<_>>())
}

fn said(text: &str) -> Continuation {
    Continuation { text: text.into(), ended: true }
}

#[test]
fn every_task_has_an_id_of_its_own_and_is_tested_here() {
    let ids: BTreeSet<&str> = TASKS.iter().chain(MORE).map(|task| task.id).collect();
    assert_eq!(ids.len(), TASKS.len() + MORE.len());
    assert_eq!(ids, FILES.iter().map(|(task, ..)| *task).collect());
}

#[test]
fn every_prompt_says_something_and_has_an_answer() {
    for (task, text, _) in FILES {
        for question in read(task, text) {
            let (prompts, answers) = (question.prompts(), question.answers());
            assert_eq!(prompts.len(), answers.len(), "{task}");
            assert!(prompts.iter().chain(&answers).all(|text| !text.trim().is_empty()), "{task}: {prompts:?}");
        }
    }
}

#[test]
fn right_answers_score_one() {
    for (task, text, _) in FILES {
        let scores = scores(task, text, said);
        assert!((scores.strict.unwrap() - 1.0).abs() < 1e-6, "{task}: {scores:?}");
        assert!(scores.paper.is_none_or(|paper| paper > 0.99 || *task == "ner"), "{task}: {scores:?}");
        assert_eq!(scores.sum.paper.unparsed + scores.sum.strict.unparsed, 0, "{task}");
    }
}

#[test]
fn a_model_that_says_one_thing_whatever_it_is_asked_scores_zero() {
    for (task, text, _) in FILES {
        for ended in [false, true] {
            let scores = scores(task, text, |_| Continuation { text: " zq".into(), ended });
            assert_eq!((scores.paper.unwrap_or(0.0), scores.strict), (0.0, Some(0.0)), "{task}");
        }
    }
}

#[test]
fn silence_is_unparsed_and_scores_zero() {
    for (task, text, _) in FILES {
        for text_of_reply in ["", " ", "\n"] {
            let scores = scores(task, text, |_| said(text_of_reply));
            assert_eq!((scores.paper.unwrap_or(0.0), scores.strict), (0.0, Some(0.0)), "{task}");
            assert_eq!(scores.sum.strict.unparsed, prompts(task, text).len(), "{task}");
        }
    }
}

#[test]
fn a_byte_order_mark_and_the_line_ends_of_windows_change_nothing() {
    for (task, text, _) in FILES {
        assert_eq!(prompts(task, &format!("\u{feff}{}", text.replace('\n', "\r\n"))), prompts(task, text), "{task}");
    }
}

#[test]
fn an_empty_file_is_an_error_that_says_so() {
    for (task, ..) in FILES {
        for text in ["", "\u{feff}\r\n"] {
            assert_eq!(complaint(task, text), "f: the file is empty", "{task}");
        }
    }
}

#[test]
fn wrong_columns_are_named_with_those_there_are() {
    let records = r#"{"name": "x", "value": "y"}"#;
    for (task, ..) in FILES.iter().filter(|(task, ..)| *task != "ner") {
        let complaint = complaint(task, records);
        assert!(complaint.starts_with("f: line 1: field \""), "{task}: {complaint}");
        assert!(complaint.contains("expected") && complaint.ends_with("there are name, value"), "{task}: {complaint}");
    }
    // What these read may be a table, too.
    for (task, table) in [("nli", "name\tvalue\nx\ty\n"), ("sentiment", "name\tvalue\nx\ty\n")] {
        assert!(complaint(task, table).ends_with("there are name, value"), "{task}");
    }
    assert!(complaint("summarization", "name,value\nx,y\n").ends_with("there are name, value"));
    assert!(complaint("ner", records).contains("in the last column, found"));
}

/// `tests/tasks/README.md` says what a case is made of.
#[test]
fn every_case_gets_its_verdict() {
    for (task, _, cases) in FILES {
        let cases: Vec<Value> = serde_json::from_str(cases).unwrap();
        for case in cases {
            let document = match &case["document"] {
                Value::String(text) => text.clone(),
                record => record.to_string(),
            };
            let replies = case["replies"].as_array().cloned().unwrap_or_else(|| vec![case["reply"].clone()]);
            let replies: Vec<Continuation> =
                replies.iter().map(|reply| continuation(reply.as_str().unwrap())).collect();
            let judgement = read(task, &document)[0].judge(&replies);
            let found = [shown(&judgement.paper), shown(&judgement.strict)];
            let expected = ["paper", "strict"].map(|reading| case[reading].as_str().unwrap());
            assert_eq!(found, expected, "{task}: {}", case["case"]);
        }
    }
}

fn continuation(reply: &str) -> Continuation {
    let text = reply.strip_suffix('⏹');
    Continuation { text: text.unwrap_or(reply).into(), ended: text.is_some() }
}

/// A verdict in a line: `1/1`, `0/1 unparsed`, `LOC 1/2, PER 0/0`.
fn shown(verdict: &Verdict) -> String {
    let one = verdict.parts.len() == 1;
    let part = |(name, Tally(hits, total)): (&String, &Tally)| {
        let hits = (hits * 1e4).round() / 1e4;
        if one { format!("{hits}/{total}") } else { format!("{name} {hits}/{total}") }
    };
    let parts = verdict.parts.iter().map(part).collect::<Vec<_>>().join(", ");
    if verdict.unparsed > 0 { format!("{parts} unparsed") } else { parts }
}
