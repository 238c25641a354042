//! Reasoning: the number that answers a short problem in words.

use rectify_protocol::{Continuation, Judgement};

use super::{
    Question, Task,
    question::{only, verdict},
    records::{self, Record, questions},
    score::numbers,
};
use crate::Result;

/// GSM8K, <https://arxiv.org/abs/2110.14168>, as published: the prompt holds the worked solution, and the model need
/// only say the number it ends in. In 94.6% of the records that is the solution's last number.
pub(super) const REASONING: Task = Task {
    id: "reasoning",
    name: "Reasoning (GSM8K, solution given)",
    new_tokens: 5,
    read: |file, text| questions(records::json(file, text)?, |record| Ok(Solved(problem(record)?))),
};

/// GSM8K without the solution in the prompt: the model has to work it out. No scorer was released for it.
pub(super) const UNAIDED: Task = Task {
    id: "reasoning_unaided",
    name: "Reasoning (GSM8K, unaided)",
    new_tokens: 256,
    read: |file, text| questions(records::json(file, text)?, |record| Ok(Unaided(problem(record)?))),
};

struct Problem {
    question: String,
    /// The worked solution, with calculator annotations and its final line end.
    solution: String,
    /// As written, commas included.
    answer: String,
}

struct Solved(Problem);

struct Unaided(Problem);

fn problem(record: &Record) -> Result<Problem> {
    let text = record.text("answer")?;
    let parts = text.split_once("#### ").filter(|(_, answer)| numbers(answer).next().is_some());
    let (solution, answer) = parts.ok_or_else(|| record.wrong("answer", "a solution, \"#### \" and a number"))?;
    Ok(Problem { question: record.text("question")?, solution: solution.into(), answer: answer.into() })
}

impl Problem {
    fn is(&self, number: Option<f64>) -> bool {
        number.is_some() && number == numbers(&self.answer).next()
    }
}

impl Question for Solved {
    fn prompts(&self) -> Vec<String> {
        let Problem { question, solution, .. } = &self.0;
        vec![format!(
            "Q: {question} A:Let's think step by step. {solution} Therefore, the answer (arabic numerals) is:"
        )]
    }

    fn answers(&self) -> Vec<String> {
        vec![format!(" {}", self.0.answer)]
    }

    /// Paper: the answer is somewhere in the reply, so that 180 answers 18. Strict: the reply's first number is it.
    fn judge(&self, replies: &[Continuation]) -> Judgement {
        let reply = only(replies);
        let first = numbers(&reply.text).next();
        Judgement {
            paper: verdict("accuracy", reply.text.contains(&self.0.answer), first.is_some()),
            strict: verdict("accuracy", self.0.is(first), first.is_some()),
            ..Judgement::default()
        }
    }
}

impl Question for Unaided {
    fn prompts(&self) -> Vec<String> {
        vec![format!("Q: {} A:Let's think step by step.", self.0.question)]
    }

    fn answers(&self) -> Vec<String> {
        vec![format!(" {}", self.0.answer)]
    }

    /// Strict: the reply's last number is the answer.
    fn judge(&self, replies: &[Continuation]) -> Judgement {
        let last = numbers(&only(replies).text).last();
        Judgement { strict: verdict("accuracy", self.0.is(last), last.is_some()), ..Judgement::default() }
    }
}

#[cfg(test)]
mod tests {
    use crate::task::tests::{complaint, prompts};

    const LINE: &str = r#"{"question":"How many?","answer":"9+9=<<9+9=18>>18.\n#### 18"}"#;

    #[test]
    fn the_prompt_is_the_released_one_with_the_solution_in_it() {
        let expected = "Q: How many? A:Let's think step by step. 9+9=<<9+9=18>>18.\n Therefore, the answer (arabic \
                        numerals) is:";
        assert_eq!(prompts("reasoning", LINE), [expected]);
        assert_eq!(prompts("reasoning_unaided", LINE), ["Q: How many? A:Let's think step by step."]);
    }

    #[test]
    fn an_answer_has_a_solution_and_a_number() {
        for answer in ["18", "9+9 #### ", "9+9 #### eighteen"] {
            let line = format!(r#"{{"question":"How many?","answer":"{answer}"}}"#);
            assert!(complaint("reasoning", &line).contains("expected a solution, \"#### \" and a number, found"));
        }
    }
}
