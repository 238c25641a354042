//! Natural language inference: does the first sentence of an RTE pair entail the second?

use super::{
    Questions, Task,
    records::{self, questions},
    two_way::{Both, TwoWay},
};
use crate::Result;

/// RTE of GLUE, <https://arxiv.org/abs/1804.07461>. Two-way accuracy; the paper's 2,489 pairs are of RTE's training
/// set.
pub(super) const NLI: Task = Task { id: "nli", name: "Natural language inference (RTE)", new_tokens: 1, read };

/// GLUE's table with a header, or JSON with GLUE's or SuperGLUE's names; the Hub's copies number the labels, 0 for
/// entailment, and leave a test pair at −1, which is refused.
fn read(file: &str, text: &str) -> Result<Questions> {
    questions(records::json_or_table(file, text, '\t')?, |record| {
        let [first, second] =
            if record.has("premise") { ["premise", "hypothesis"] } else { ["sentence1", "sentence2"] };
        let (first, second) = (record.text(first)?, record.text(second)?);
        Ok(TwoWay {
            prompt: format!("{first} entails the {second}. True or False? answer:"),
            words: ["True", "False"],
            right: record.label("label", &["entailment", "not_entailment"])?,
            both: Both::RightAndWrong,
        })
    })
}

#[cfg(test)]
mod tests {
    use crate::task::tests::{answers, complaint, prompts};

    const PROMPT: &str = "A dog, \"Rex\", sleeps. entails the An animal sleeps.. True or False? answer:";

    #[test]
    fn the_prompt_is_the_released_one_with_two_periods_in_a_row() {
        let table = "index\tsentence1\tsentence2\tlabel\n7\tA dog, \"Rex\", sleeps.\tAn animal sleeps.\tentailment\n";
        assert_eq!(prompts("nli", table), [PROMPT]);
    }

    #[test]
    fn the_names_of_superglue_are_read_too() {
        let line = r#"{"premise":"A dog, \"Rex\", sleeps.","hypothesis":"An animal sleeps.","label":"entailment"}"#;
        assert_eq!(prompts("nli", line), [PROMPT]);
    }

    #[test]
    fn a_label_may_be_its_number() {
        for (label, right) in [("0", " True"), ("1", " False"), ("\"1\"", " False")] {
            let line = format!(r#"{{"sentence1":"A dog.","sentence2":"A cat.","label":{label}}}"#);
            assert_eq!(answers("nli", &line), [right], "{label}");
        }
        assert!(complaint("nli", r#"{"sentence1":"A","sentence2":"B","label":-1}"#).contains("found -1"));
    }

    #[test]
    fn another_label_or_a_missing_column_is_named() {
        let label = complaint("nli", "sentence1\tsentence2\tlabel\nx\ty\tneutral\n");
        assert_eq!(
            label,
            "f: line 2: field \"label\": expected \"entailment\" or \"not_entailment\", found \"neutral\""
        );
        assert!(complaint("nli", "sentence1\tlabel\nx\tentailment\n").contains("field \"sentence2\": expected text"));
    }
}
