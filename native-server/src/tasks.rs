//! Files of task records, and models that answer them.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use rectify_core::{
    Answered,
    model::{LoadedModel, Model},
    task::{MORE, Question, Records, TASKS, Task, judged},
};
use rectify_protocol::{Continuation, Failure, Judgement, Kind, unknown};

use crate::{crew, hub::sets::DataSet, io};

/// What each task's file begins with, whatever its split and ending.
const FILES: &[(&str, &[&str])] = &[
    ("reasoning", &["gsm8k"]),
    ("nli", &["rte"]),
    ("open_qa", &["nq"]),
    ("closed_qa", &["boolq"]),
    ("dialogue", &["mutual"]),
    ("summarization", &["samsum"]),
    ("ner", &["conll"]),
    ("sentiment", &["sst2", "sst-2"]),
];

/// What `--tasks` takes.
pub fn words() -> String {
    let ids = |tasks: &[Task]| tasks.iter().map(|task| task.id).collect::<Vec<_>>().join(", ");
    format!("Tasks by id, or all: {}. Not in all: {}", ids(TASKS), ids(MORE))
}

/// What `--data` takes.
pub fn words_about_files() -> String {
    let names: Vec<String> = FILES.iter().map(|(_, beginnings)| format!("{}*", beginnings[0])).collect();
    format!("The folder with their files: {}", names.join(", "))
}

/// The tasks of these ids; `all` are the paper's eight.
///
/// # Errors
///
/// When an id is none.
pub fn named(ids: &[String]) -> Result<Vec<&'static Task>, Failure> {
    let mut tasks: Vec<&Task> = Vec::new();
    for id in ids {
        if id == "all" {
            tasks.extend(TASKS);
            continue;
        }
        let known: Vec<&str> = TASKS.iter().chain(MORE).map(|task| task.id).chain(["all"]).collect();
        let found = Task::find(id);
        tasks.push(found.ok_or_else(|| Failure::bad_input(unknown("task", id, &known)))?);
    }
    Ok(tasks)
}

/// Reads a task's records from the file in `folder` that is named like its data set; with a `limit`, so many of them
/// at equal distances.
///
/// # Errors
///
/// When there is no such file, or several, or it is not as it should be.
pub fn load(task: &'static Task, folder: &Path, limit: Option<usize>) -> Result<Records, Failure> {
    let path = find(task, folder)?;
    let (hash, _) = io::sha256(&path)?;
    let records = Records::read(task, &path.display().to_string(), &io::read_text(&path)?, hash)?;
    Ok(limit.map_or(records.clone(), |limit| records.sample(limit)))
}

fn find(task: &Task, folder: &Path) -> Result<PathBuf, Failure> {
    match files(task, folder)?.as_slice() {
        [only] => Ok(only.clone()),
        [] => {
            let fetch = DataSet::of_task(id_of(task)).map_or("", |set| set.id);
            Err(Failure::new(
                Kind::NotFound,
                format!(
                    "{} has no file for {}: put one there whose name begins with {:?}; \"rectify data fetch {fetch}\" \
                     gets one or says what it holds",
                    folder.display(),
                    task.name,
                    beginnings(task)[0]
                ),
            ))
        }
        several => {
            let names: Vec<String> = several.iter().map(|path| path.display().to_string()).collect();
            Err(Failure::bad_input(format!(
                "several files are for {}: {}; leave one of them in the folder",
                task.name,
                names.join(", ")
            )))
        }
    }
}

/// The files in `folder` that are named like a task's data set.
///
/// # Errors
///
/// When the folder cannot be read.
pub fn files(task: &Task, folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let listed = fs::read_dir(folder).map_err(|error| io::cannot_read(folder, &error))?;
    let is_it = |name: &OsStr| name.to_str().is_some_and(|name| is_for(task, name));
    let mut found: Vec<PathBuf> = listed
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.is_file() && path.file_name().is_some_and(is_it))
        .collect();
    found.sort();
    Ok(found)
}

/// Whether a file of this name is a task's.
pub fn is_for(task: &Task, name: &str) -> bool {
    beginnings(task).iter().any(|start| name.to_lowercase().starts_with(start))
}

/// What the names of a task's files begin with.
pub fn beginnings(task: &Task) -> &'static [&'static str] {
    FILES.iter().find(|(id, _)| *id == id_of(task)).expect("every task has a file").1
}

/// The id of a task, or of the one that it is a variant of.
pub fn id_of(task: &Task) -> &'static str {
    VARIANTS_OF.iter().find(|(variant, _)| *variant == task.id).map_or(task.id, |(_, id)| *id)
}

/// Variants read the file of the task that they vary.
const VARIANTS_OF: &[(&str, &str)] = &[("reasoning_unaided", "reasoning"), ("open_qa_released", "open_qa")];

/// How some questions were answered.
pub struct Judged {
    /// Of each model, by the questions' order; absent where prompt and answer do not fit the context.
    pub judgements: Vec<Vec<Option<Judgement>>>,
    /// What each model said, by the questions' prompts.
    pub continuations: Vec<Vec<Option<Continuation>>>,
    /// Tokens that went through the models.
    pub tokens: usize,
    /// Seconds it took.
    pub seconds: f64,
}

/// Lets `of`'s model, or variants of it, answer some questions. `watch` is told of prompts done.
///
/// # Errors
///
/// As [`crew::answer`].
pub async fn judge(
    of: &LoadedModel,
    models: &[Model],
    task: &Task,
    questions: &[&dyn Question],
    watch: &mut dyn FnMut(usize),
) -> rectify_core::Result<Judged> {
    let started = Instant::now();
    let prompts: Vec<String> = questions.iter().flat_map(|question| question.prompts()).collect();
    let Answered { continuations, tokens } = crew::answer(of, models, &prompts, task.new_tokens, watch).await?;
    let judgements = continuations.iter().map(|continuations| judged(questions, continuations)).collect();
    Ok(Judged { judgements, continuations, tokens, seconds: started.elapsed().as_secs_f64() })
}

#[cfg(test)]
mod tests {
    use std::{slice, sync::Arc};

    use rectify_core::Session;
    use rectify_protocol::{ArchitectureKind, Command, EditSpec, EditorSpec, Event, Fact, Guards, TaskScores};

    use super::*;
    use crate::{
        device::DeviceKind,
        engine::{self, Cancel},
        models::Static,
    };

    fn demo() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../static/tasks/demo")
    }

    #[test]
    fn every_task_of_the_demo_world_is_found_and_read() {
        for task in named(&["all".into()]).unwrap() {
            let loaded = load(task, &demo(), None).unwrap();
            assert_eq!(loaded.questions.len(), 240, "{}", task.id);
        }
        for (variant, _) in VARIANTS_OF {
            load(Task::find(variant).unwrap(), &demo(), Some(3)).unwrap();
        }
    }

    /// What the page shows of a session is what `rectify eval` says of the same model and records.
    #[test]
    fn a_session_s_abilities_are_those_of_eval() {
        let statics = Static::open(&demo().join("../..")).unwrap();
        let source = statics.bundled("demo-nano").unwrap();
        let cancel = Cancel::default();
        let mut session = engine::open(&source, DeviceKind::Flex, &cancel, &mut |_| {}).unwrap().unwrap();
        let ask = |session: &mut Session, task: &str, unedited| {
            let command = Command::Evaluate { task: task.to_owned(), records: 12, unedited };
            engine::drive(session.handle(command, &mut |_| {}), &cancel).unwrap()
        };
        assert!(ask(&mut session, "nli", false).unwrap_err().to_string().contains("no tasks"));
        session.set_tasks(Arc::new(statics.tasks("demo-nano").unwrap()));
        assert!(ask(&mut session, "nlii", false).unwrap_err().to_string().contains("did you mean \"nli\"?"));
        let editor = EditorSpec::published("ft", ArchitectureKind::Gpt2).unwrap();
        let facts = vec![Fact {
            subject: "Willa Farolde".into(),
            prompt: "Willa Farolde was born in the city of".into(),
            target_new: "Marrowfield".into(),
            ..Fact::default()
        }];
        let edit = Command::Edit { facts, spec: EditSpec { guards: Guards::NONE, ..EditSpec::new(editor) } };
        engine::drive(session.handle(edit, &mut |_| {}), &cancel).unwrap().unwrap();
        for task in TASKS {
            let records = load(task, &demo(), Some(12)).unwrap();
            for unedited in [false, true] {
                let Event::Evaluated(ability) = ask(&mut session, task.id, unedited).unwrap() else {
                    panic!("{}", task.id)
                };
                let of = session.loaded().unwrap();
                let model = if unedited { &of.model } else { session.model().unwrap() };
                let (asked, mut silent) = (records.asked(), |_| {});
                let judged = judge(of, slice::from_ref(model), task, &asked, &mut silent);
                let judged = engine::drive(judged, &cancel).unwrap().unwrap().judgements.remove(0);
                assert_eq!(ability.scores, TaskScores::of(judged.iter().flatten()), "{}", task.id);
                assert_eq!((ability.edits, ability.of), (usize::from(!unedited), 240));
                assert_eq!(ability.items.len(), judged.iter().flatten().count());
            }
        }
    }

    #[test]
    fn every_task_has_a_file_of_a_name() {
        for task in TASKS.iter().chain(MORE) {
            assert!(FILES.iter().any(|(id, _)| *id == id_of(task)), "FILES has no line for {}", task.id);
        }
    }

    #[test]
    fn a_limit_takes_records_from_the_whole_file() {
        let loaded = load(Task::find("nli").unwrap(), &demo(), Some(4)).unwrap();
        let numbers: Vec<usize> = loaded.questions.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, [0, 60, 120, 180]);
    }

    #[track_caller]
    fn check_refused<T>(result: Result<T, Failure>, parts: &[&str]) {
        let failure = result.err().expect("it was accepted");
        for part in parts {
            assert!(failure.message.contains(part), "{failure}\nlacks {part:?}");
        }
    }

    #[test]
    fn a_missing_or_doubtful_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let nli = Task::find("nli").unwrap();
        let here = folder.path().display().to_string();
        check_refused(load(nli, folder.path(), None), &[&here, "no file for", "begins with \"rte\"", "data fetch rte"]);
        check_refused(load(nli, Path::new("/nowhere"), None), &["cannot read /nowhere"]);
        fs::write(folder.path().join("rte_dev.tsv"), "").unwrap();
        check_refused(load(nli, folder.path(), None), &["rte_dev.tsv", "empty"]);
        fs::write(folder.path().join("RTE_test.tsv"), "").unwrap();
        check_refused(load(nli, folder.path(), None), &["several files", "RTE_test.tsv"]);
        fs::write(folder.path().join("gsm8k.jsonl"), b"PAR1\x15\x04\xff").unwrap();
        let reasoning = Task::find("reasoning").unwrap();
        check_refused(load(reasoning, folder.path(), None), &["gsm8k.jsonl", "Parquet", "JSON Lines"]);
        check_refused(named(&["nlii".into()]), &["did you mean \"nli\"?"]);
    }

    /// A score over fewer records than the file has would pass for one over all of them.
    #[test]
    fn a_record_with_a_blank_text_is_named_and_not_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let check = |id: &str, file: &str, line: &str, parts: &[&str]| {
            // A whole record first, so that the second line is the one to be named.
            let whole = fs::read_to_string(demo().join(file)).unwrap();
            fs::write(folder.path().join(file), format!("{}\n{line}\n", whole.lines().next().unwrap())).unwrap();
            let place = format!("{}: line 2: field", folder.path().join(file).display());
            check_refused(load(Task::find(id).unwrap(), folder.path(), None), &[&[place.as_str()], parts].concat());
        };
        let blank = r#"{"question": "q", "passage": " ", "answer": true}"#;
        check("closed_qa", "boolq_test.jsonl", blank, &["\"passage\"", "text that is not blank", "found \" \""]);
        let blank = r#"{"question": "q", "answer": ["a"], "output": ["\n\n"]}"#;
        check("open_qa", "nq_open_test.jsonl", blank, &["\"output\"", "texts that are not blank"]);
        let blank = r#"{"question": "", "answer": "1 #### 1"}"#;
        check("reasoning", "gsm8k_test.jsonl", blank, &["\"question\"", "text that is not blank"]);
    }
}
