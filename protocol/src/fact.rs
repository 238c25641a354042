use serde::{Deserialize, Serialize};

use crate::{Failure, bounds};

/// A fact to write into a model, and what else to ask before and after.
///
/// `prompt` is complete text and contains `subject` exactly once; the answer is what follows it.
/// Targets are written without the space that separates them from the prompt.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fact {
    /// Whom or what the fact is about, exactly as it stands in `prompt`.
    pub subject: String,
    /// Text that the object completes: `Orvane Tellis was born in the city of`.
    pub prompt: String,
    /// The object that the edited model should answer.
    pub target_new: String,
    /// The object that the model answers now, where known: its probability is reported too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_true: Option<String>,
    /// Other ways to ask the same: the edit should hold there as well (generalization).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paraphrases: Vec<String>,
    /// Questions about something else: their answers should stay (locality).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub neighbors: Vec<Neighbor>,
    /// What follows once the fact is true: the edit should carry over to it (portability).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub consequences: Vec<Consequence>,
    /// Prompts to write on from, for scores of the text: fluency and consistency.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub generation_prompts: Vec<String>,
    /// Texts about others of whom the new object is true: what a consistent text has words in common with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub references: Vec<String>,
}

/// A question whose answer an edit should leave alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Neighbor {
    /// Text to be completed.
    pub prompt: String,
    /// The right answer where known. Locality compares predictions along it before and after the edit; where there is
    /// none, the prediction of the token after the prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}

/// A question whose right answer follows from the fact.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Consequence {
    /// Text to be completed.
    pub prompt: String,
    /// The answer that is right once the fact is true.
    pub target: String,
}

impl Fact {
    /// Says what is missing or contradictory, naming the field.
    ///
    /// # Errors
    ///
    /// When a text or a list is too long, a subject, prompt or target is blank, the subject has space around it, the
    /// prompt is the subject alone, or the subject does not occur exactly once in it.
    pub fn validate(&self) -> Result<(), Failure> {
        for (field, text) in [("subject", &self.subject), ("prompt", &self.prompt), ("target_new", &self.target_new)] {
            not_blank(field, text)?;
        }
        if self.target_true.as_ref().is_some_and(|target| target.trim().is_empty()) {
            return Err(Failure::bad_field("target_true", "is empty; leave it out where it is unknown"));
        }
        self.check_bounds()?;
        if self.prompt.trim() == self.subject {
            let problem = "is nothing but the subject; it must ask something of it";
            return Err(wrong("prompt", format!("the prompt {:?} {problem}", self.prompt)));
        }
        check_subject(&self.subject, &self.prompt)?;
        for (field, prompts) in [
            ("paraphrases", self.paraphrases.iter().collect::<Vec<_>>()),
            ("neighbors", self.neighbors.iter().map(|neighbor| &neighbor.prompt).collect()),
            ("neighbors' targets", self.neighbors.iter().filter_map(|neighbor| neighbor.target.as_ref()).collect()),
            ("consequences", self.consequences.iter().map(|consequence| &consequence.prompt).collect()),
            ("consequences' targets", self.consequences.iter().map(|consequence| &consequence.target).collect()),
            ("generation_prompts", self.generation_prompts.iter().collect()),
        ] {
            prompts.iter().enumerate().try_for_each(|(i, prompt)| not_blank(&format!("{field}[{i}]"), prompt))?;
        }
        Ok(())
    }

    /// Complains about more texts, or longer ones, than a fact may have.
    fn check_bounds(&self) -> Result<(), Failure> {
        for (field, text) in [("subject", &self.subject), ("prompt", &self.prompt), ("target_new", &self.target_new)] {
            bounds::text(field, text)?;
        }
        bounds::text("target_true", self.target_true.as_deref().unwrap_or_default())?;
        bounds::entries("paraphrases", &self.paraphrases, bounds::PROBES)?;
        bounds::entries("neighbors", &self.neighbors, bounds::PROBES)?;
        bounds::entries("consequences", &self.consequences, bounds::PROBES)?;
        bounds::entries("generation_prompts", &self.generation_prompts, bounds::PROBES)?;
        bounds::entries("references", &self.references, bounds::PROBES)
    }
}

/// Complains about a text without a letter, by the field's name.
pub(crate) fn not_blank(field: &str, text: &str) -> Result<(), Failure> {
    if text.trim().is_empty() { Err(Failure::bad_field(field, "is empty")) } else { Ok(()) }
}

/// Complains about a subject with space around it, or one that does not occur exactly once in its prompt.
pub(crate) fn check_subject(subject: &str, prompt: &str) -> Result<(), Failure> {
    if subject.trim() != subject {
        let problem =
            "begins or ends with a space; without it the last token is the subject's, with it the next word's";
        return Err(wrong("subject", format!("the subject {subject:?} {problem}")));
    }
    let problem = match prompt.matches(subject).count() {
        1 => return Ok(()),
        0 if prompt.contains("{}") => {
            format!("does not occur in the prompt {prompt:?}; write the subject in place of {{}}")
        }
        0 => format!("does not occur in the prompt {prompt:?}"),
        n => {
            format!("occurs {n} times in the prompt {prompt:?}; it must occur once, so that there is one place to look")
        }
    };
    Err(wrong("subject", format!("the subject {subject:?} {problem}")))
}

fn wrong(field: &str, message: String) -> Failure {
    Failure { field: Some(field.to_owned()), ..Failure::bad_input(message) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(subject: &str, prompt: &str, target: &str, complaint: Option<&str>) {
        let fact =
            Fact { subject: subject.into(), prompt: prompt.into(), target_new: target.into(), ..Fact::default() };
        match (fact.validate(), complaint) {
            (Ok(()), None) => {}
            (Err(failure), Some(part)) => assert!(failure.message.contains(part), "{failure}"),
            (found, expected) => panic!("expected {expected:?}, found {found:?}"),
        }
    }

    #[test]
    fn a_fact_has_so_many_probes_and_no_more() {
        let fact = |n| Fact {
            subject: "Ada".into(),
            prompt: "Ada was born in".into(),
            target_new: "Rome".into(),
            paraphrases: vec!["Ada is from".into(); n],
            ..Fact::default()
        };
        fact(bounds::PROBES).validate().unwrap();
        let failure = fact(bounds::PROBES + 1).validate().unwrap_err();
        assert!(failure.message.contains("paraphrases has 1001 entries; there may be 1000"), "{failure}");
    }

    #[test]
    fn a_fact_names_what_is_wrong_with_it() {
        check("Ada", "Ada was born in", "Rome", None);
        check("", "Ada was born in", "Rome", Some("subject is empty"));
        check("Ada", " ", "Rome", Some("prompt is empty"));
        check("Ada", "Ada was born in", "", Some("target_new is empty"));
        check("Ida", "Ada was born in", "Rome", Some("does not occur in the prompt"));
        check("Ada", "Ada, Ada was born in", "Rome", Some("occurs 2 times"));
        check("Ada", "Ada", "Rome", Some("nothing but the subject"));
        check("Ada", "Ada ", "Rome", Some("nothing but the subject"));
        check("Ada ", "Ada was born in", "Rome", Some("begins or ends with a space"));
        check("\u{a0}Ada", "In\u{a0}Ada was born", "Rome", Some("begins or ends with a space"));
    }

    #[test]
    fn an_answer_that_is_unknown_is_left_out_and_not_empty() {
        let fact = Fact {
            subject: "Ada".into(),
            prompt: "Ada was born in".into(),
            target_new: "Rome".into(),
            ..Fact::default()
        };
        let said = |fact: Fact| fact.validate().expect_err("refused").to_string();
        assert!(said(Fact { target_true: Some(" ".into()), ..fact.clone() }).contains("target_true is empty"));
        let neighbors = vec![Neighbor { prompt: "Ida was born in".into(), target: Some(String::new()) }];
        assert!(said(Fact { neighbors, ..fact }).contains("neighbors' targets[0] is empty"));
    }
}
