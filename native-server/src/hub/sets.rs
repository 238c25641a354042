//! The data sets that `rectify data fetch` knows: what they are, whose, where they are, and on which terms.
//!
//! This file is the whole table. How a file comes from there to a folder is in [`super::fetch`].

use rectify_core::task::Task;

/// A data set, as one file.
#[derive(Clone, Copy, Debug)]
pub struct DataSet {
    /// What command lines call it.
    pub id: &'static str,
    /// What it is, and which part of it.
    pub about: &'static str,
    /// What its publishers allow; `unstated` where they do not say.
    pub licence: &'static str,
    /// Where the file is.
    pub source: Source,
    /// Bytes that come over the network, if known.
    pub size: Option<u64>,
    /// SHA-256 of the file as it is kept, where somebody has seen it: a later one is not what it seems to be.
    pub sha256: Option<&'static str>,
    /// What the file is called in the folder: `eval` finds it by how this begins.
    pub file: &'static str,
    /// What a file of this name must hold, whoever puts it there.
    pub format: &'static str,
    /// Who reads it.
    pub reader: Reader,
    /// What else there is, for anyone who cannot fetch it.
    pub elsewhere: Option<&'static str>,
}

/// Where a file is.
#[derive(Clone, Copy, Debug)]
pub enum Source {
    /// In a repository of data on the Hugging Face hub.
    Hub {
        /// `owner/name`.
        repository: &'static str,
        /// The file's path there.
        file: &'static str,
    },
    /// At an address.
    Web(&'static str),
    /// In a ZIP archive at an address.
    Archive {
        /// The archive's.
        address: &'static str,
        /// The file's path in it. Of a folder, which ends in `/`, every file becomes a line.
        member: &'static str,
    },
}

/// Who reads a file.
#[derive(Clone, Copy, Debug)]
pub enum Reader {
    /// The task of this id.
    Task(&'static str),
    /// `edit --facts` and everything else that takes an edit set.
    Facts,
}

impl DataSet {
    /// The data set that a task reads.
    pub fn of_task(id: &str) -> Option<&'static Self> {
        SETS.iter().find(|set| matches!(set.reader, Reader::Task(task) if task == id))
    }

    /// Where it is, as one would write it down.
    pub fn place(&self) -> String {
        match self.source {
            Source::Hub { repository, file } => {
                format!("https://huggingface.co/datasets/{repository}/resolve/main/{file}")
            }
            Source::Web(address) => address.into(),
            Source::Archive { address, member } if member.ends_with('/') => {
                format!("{address}, every file in {member}, one to a line")
            }
            Source::Archive { address, member } => format!("{address}, {member} in it"),
        }
    }

    /// What a person reads before saying yes.
    pub fn terms(&self) -> String {
        let size = self.size.map_or_else(|| "size unknown".into(), |bytes| indicatif::HumanBytes(bytes).to_string());
        let used = match self.reader {
            Reader::Task(id) => format!("the task {id}: {}", Task::find(id).map_or(id, |task| task.name)),
            Reader::Facts => "edits: --facts".into(),
        };
        format!(
            "{}: {}\n  for      {used}\n  from     {}\n           ({size})\n  licence  {}\n  kept as  {}\n",
            self.id,
            self.about,
            self.place(),
            self.licence,
            self.file
        )
    }
}

/// The eight tasks in the paper's order, then edit sets.
pub const SETS: &[DataSet] = &[
    DataSet {
        id: "gsm8k",
        about: "grade school problems in words, the test set, 1,319 problems",
        licence: "MIT",
        source: Source::Web(
            "https://raw.githubusercontent.com/openai/grade-school-math/b0bb162abedc65e1fdd8e93ed090fd7598ee68bc/\
             grade_school_math/data/test.jsonl",
        ),
        size: Some(749_738),
        sha256: Some("3730d312f6e3440559ace48831e51066acaca737f6eabec99bccb9e4b3c39d14"),
        file: "gsm8k_test.jsonl",
        format: "JSON Lines with question and answer; the answer ends in #### and a number",
        reader: Reader::Task("reasoning"),
        elsewhere: Some("openai/gsm8k on the Hugging Face hub has it as Parquet, to be written as JSON Lines"),
    },
    DataSet {
        id: "rte",
        about: "pairs of sentences, does one entail the other: SuperGLUE's validation set, 277 pairs",
        licence: "unstated",
        source: Source::Archive {
            address: "https://dl.fbaipublicfiles.com/glue/superglue/data/v2/RTE.zip",
            member: "RTE/val.jsonl",
        },
        size: None,
        sha256: None,
        file: "rte_val.jsonl",
        format: "JSON Lines with premise, hypothesis and label, or GLUE's RTE/dev.tsv (or train.tsv, the paper's 2,489 \
                 pairs); the label is entailment or not_entailment",
        reader: Reader::Task("nli"),
        elsewhere: Some("nyu-mll/glue on the Hugging Face hub has it as Parquet, with 0 for entailment"),
    },
    DataSet {
        id: "nq",
        about: "Natural Questions, open, the test set with one passage each that a language model wrote, 3,610 questions",
        licence: "CC BY-SA 3.0 for the questions; unstated for the passages: the paper's repository, where the file lay for \
                  a day, named none beside it",
        source: Source::Web(
            "https://raw.githubusercontent.com/JasonForJoy/Model-Editing-Hurt/a9e9f3d334c93e926d91e4a1e17fd1f681319e4a/task-data/test-OpenDomainQA.jsonl",
        ),
        size: Some(1_685_336),
        sha256: Some("024b6a9b02cd1cdea0ce0053d8f6504c6fb6c47ebb08ae886d99ee76eb6a163a"),
        file: "nq_open_test.jsonl",
        format: "JSON Lines with question, answer (a list of names for it) and output (a list, whose first text is the \
                 passage)",
        reader: Reader::Task("open_qa"),
        elsewhere: Some(
            "google-research-datasets/nq_open on the Hugging Face hub has questions and answers as Parquet, without \
             passages; GenRead (https://github.com/wyu97/GenRead) writes passages",
        ),
    },
    DataSet {
        id: "boolq",
        about: "yes or no by a passage: SuperGLUE's validation set, 3,270 questions; passages begin with a title, which \
                the first publication's do not",
        licence: "CC BY-SA 3.0",
        source: Source::Archive {
            address: "https://dl.fbaipublicfiles.com/glue/superglue/data/v2/BoolQ.zip",
            member: "BoolQ/val.jsonl",
        },
        size: None,
        sha256: Some("0c86a5045886e5795fe9052003873f7d94b88ed3028a33007c51d99e44fd66d9"),
        file: "boolq_val.jsonl",
        format: "JSON Lines with passage, question and answer or label, which is true or false",
        reader: Reader::Task("closed_qa"),
        elsewhere: Some("google/boolq on the Hugging Face hub has it as Parquet, to be written as JSON Lines"),
    },
    DataSet {
        id: "mutual",
        about: "which of four utterances goes on with a dialogue: the development set, 886 dialogues",
        licence: "unstated",
        source: Source::Archive {
            address: "https://github.com/Nealcly/MuTual/archive/b90cecada5b34226cd3d88e217844c80a6d8ee3f.zip",
            member: "MuTual-b90cecada5b34226cd3d88e217844c80a6d8ee3f/data/mutual/dev/",
        },
        size: None,
        sha256: Some("fd3b037d061362d5caea45471c9f3da8f53dceccbfd8233c4220d892174b95d0"),
        file: "mutual_dev.jsonl",
        format: "JSON Lines with article, options (four texts) and answers, a letter from A to D",
        reader: Reader::Task("dialogue"),
        elsewhere: None,
    },
    DataSet {
        id: "samsum",
        about: "chats and what they were about: the validation set, 818 chats",
        licence: "CC BY-NC-ND 4.0: non-commercial, and not to be passed on",
        source: Source::Hub { repository: "knkarthick/samsum", file: "validation.csv" },
        size: None,
        sha256: None,
        file: "samsum_validation.csv",
        format: "a table with a header and commas, or JSON, with dialogue and summary",
        reader: Reader::Task("summarization"),
        elsewhere: Some("https://arxiv.org/abs/1911.12237 comes with corpus.7z, whose val.json is read as it is"),
    },
    DataSet {
        id: "conll2003",
        about: "sentences with their persons, places, organizations and other names: the development set (testa)",
        licence: "research only: the texts are Reuters' and are had by an agreement with NIST; not to be passed on",
        source: Source::Archive { address: "https://data.deepai.org/conll2003.zip", member: "valid.txt" },
        size: None,
        sha256: None,
        file: "conll2003_testa.txt",
        format: "CoNLL's columns, the word first and the tag last, a blank line after each sentence",
        reader: Reader::Task("ner"),
        elsewhere: Some("https://www.clips.uantwerpen.be/conll2003/ner/ makes eng.testa from the Reuters corpus"),
    },
    DataSet {
        id: "sst2",
        about: "snippets of film reviews, positive or negative: the development set, 872 snippets",
        licence: "unstated",
        source: Source::Hub { repository: "SetFit/sst2", file: "dev.jsonl" },
        size: Some(136_292),
        sha256: Some("573c3ed18d96aa0a79a6e5980a544b80543317a319f18bd4f1660c16b2f6b939"),
        file: "sst2_dev.jsonl",
        format: "JSON Lines with text and label, GLUE's SST-2/dev.tsv, or lines of a label, a space and a text; the label \
                 is 1 for positive and 0 for negative",
        reader: Reader::Task("sentiment"),
        elsewhere: Some("stanfordnlp/sst2 on the Hugging Face hub has it as Parquet"),
    },
    DataSet {
        id: "zsre",
        about: "zsRE as MEND divides it: the evaluation set, 19,086 facts",
        licence: "MIT for ROME's repository, which distributes it; unstated for zsRE",
        source: Source::Web("https://rome.baulab.info/data/dsets/zsre_mend_eval.json"),
        size: None,
        sha256: None,
        file: "zsre_mend_eval.json",
        format: "a JSON array with subject, src, alt, answers, rephrase, loc and loc_ans",
        reader: Reader::Facts,
        elsewhere: None,
    },
    DataSet {
        id: "zsre_portability",
        about: "the 1,037 facts of zsRE that EasyEdit and the paper edit, with questions about what follows",
        licence: "MIT for EasyEdit, which distributes it; unstated for zsRE and in the paper's repository, where the file \
                  lay for a day",
        source: Source::Web(
            "https://raw.githubusercontent.com/JasonForJoy/Model-Editing-Hurt/a9e9f3d334c93e926d91e4a1e17fd1f681319e4a/edited-data/zsre_mend_eval_portability_gpt4.json",
        ),
        size: Some(842_861),
        sha256: Some("0cf155da229b2eccae19fcfe5f7a09523363d357f5f15508d1521f495ad5ecd9"),
        file: "zsre_mend_eval_portability_gpt4.json",
        format: "a JSON array with subject, src, alt, answers, rephrase, loc and loc_ans",
        reader: Reader::Facts,
        elsewhere: None,
    },
    DataSet {
        id: "counterfact",
        about: "CounterFact: facts that are not so, with paraphrases and neighbours, 21,919 facts",
        licence: "MIT, with ROME's repository",
        source: Source::Web("https://rome.baulab.info/data/dsets/counterfact.json"),
        size: None,
        sha256: None,
        file: "counterfact.json",
        format: "a JSON array with requested_rewrite, paraphrase_prompts and neighborhood_prompts",
        reader: Reader::Facts,
        elsewhere: Some("azhx/counterfact on the Hugging Face hub has it as Parquet"),
    },
];

#[cfg(test)]
mod tests {
    use rectify_core::task::TASKS;

    use super::*;

    #[test]
    fn every_task_has_a_data_set_whose_file_it_finds() {
        for task in TASKS {
            let set = DataSet::of_task(task.id).unwrap_or_else(|| panic!("no data for {}", task.id));
            assert!(crate::tasks::is_for(task, set.file), "{} is not found under {}", task.id, set.file);
        }
    }

    #[test]
    fn an_edit_set_is_no_tasks_file() {
        for set in SETS.iter().filter(|set| matches!(set.reader, Reader::Facts)) {
            assert!(TASKS.iter().all(|task| !crate::tasks::is_for(task, set.file)), "{}", set.file);
        }
    }

    #[test]
    fn every_entry_is_whole() {
        for set in SETS {
            assert_eq!(SETS.iter().filter(|other| other.id == set.id).count(), 1, "{}", set.id);
            assert!(set.terms().contains(set.licence) && !set.licence.is_empty(), "{}", set.id);
            assert!(set.place().contains("https://"), "{}: {}", set.id, set.place());
            let plain = |hash: &str| hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
            assert!(set.sha256.is_none_or(plain), "{}", set.id);
        }
    }
}
