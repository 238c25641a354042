//! A batch of prompts for each processor.
//!
//! A pass over a model is many small steps, of which only the matrix products are spread over processors. A processor
//! that has a batch of its own waits for no other.

use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc, LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use burn::tensor::Device;
use rayon::{ThreadPool, ThreadPoolBuilder};
use rectify_core::{
    Answered, Batches, Result,
    model::{LoadedModel, Model},
};
use tokio::sync::mpsc;

use crate::engine::{Cancel, drive, pause};

/// As core's [`answer`](rectify_core::answer), on all processors where the model is on the CPU.
///
/// # Errors
///
/// As core's.
pub async fn answer(
    of: &LoadedModel,
    models: &[Model],
    prompts: &[String],
    new_tokens: usize,
    watch: &mut dyn FnMut(usize),
) -> Result<Answered> {
    if of.model.device() != Device::flex() || CREW.len() < 2 {
        return rectify_core::answer(of, models, prompts, new_tokens, watch).await;
    }
    let batches = Arc::new(Batches::new(of, models, prompts, new_tokens, CREW.len())?);
    let next = Arc::new(AtomicUsize::new(0));
    let (sender, mut answered) = mpsc::unbounded_channel();
    let dropped = CancelOnDrop(Cancel::default());
    for worker in CREW.iter() {
        let (batches, next, sender, cancel) = (batches.clone(), next.clone(), sender.clone(), dropped.0.clone());
        worker.spawn(move || {
            loop {
                let batch = next.fetch_add(1, Ordering::Relaxed);
                if batch >= batches.count() {
                    break;
                }
                let replies = catch_unwind(AssertUnwindSafe(|| drive(batches.answer(batch), &cancel)));
                // Nobody listens when the work was dropped.
                if sender.send(replies).is_err() {
                    break;
                }
            }
        });
    }
    drop(sender);
    let mut replies = Vec::with_capacity(models.len() * prompts.len());
    while let Some(more) = answered.recv().await {
        // A worker that fails is a failure here. None is cancelled while somebody listens.
        let more = more.unwrap_or_else(|panic| resume_unwind(panic)).expect("somebody listens");
        replies.extend(more?);
        watch(batches.done(&replies));
        pause().await;
    }
    batches.finish(replies, &of.tokenizer)
}

/// A thread for each processor. Each is a pool of its own, so that what it computes is not spread over the others.
static CREW: LazyLock<Vec<ThreadPool>> = LazyLock::new(|| {
    let one = || ThreadPoolBuilder::new().num_threads(1).thread_name(|_| "batch".into()).build();
    (0..rayon::current_num_threads()).map_while(|_| one().ok()).collect()
});

/// Stops the workers when nobody waits for them any more.
struct CancelOnDrop(Cancel);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.set();
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{device::DeviceKind, engine, models::Static, tasks};

    /// The prompts of a task go to a small model; `stop` ends the work when so many are done.
    fn answered(limit: usize, stop: usize) -> (Vec<String>, rectify_core::Session, usize, Option<Result<Answered>>) {
        let statics = Path::new(env!("CARGO_MANIFEST_DIR")).join("../static");
        let source = Static::open(&statics).unwrap().bundled("demo-nano").unwrap();
        let cancel = Cancel::default();
        let session = engine::open(&source, DeviceKind::Flex, &cancel, &mut |_| {}).unwrap().unwrap();
        let task = rectify_core::task::Task::find("open_qa").unwrap();
        let loaded = tasks::load(task, &statics.join("tasks/demo"), Some(limit)).unwrap();
        let prompts: Vec<String> = loaded.questions.iter().flat_map(|(_, question)| question.prompts()).collect();
        let (of, model) = session.loaded().zip(session.model()).unwrap();
        let mut told = 0;
        let mut watch = |done| {
            assert!(done > told, "{done} prompts after {told}");
            told = done;
            if done >= stop {
                cancel.set();
            }
        };
        let answered = drive(answer(of, std::slice::from_ref(model), &prompts, task.new_tokens, &mut watch), &cancel);
        (prompts, session, told, answered)
    }

    #[test]
    fn the_crew_answers_as_one_does() {
        if CREW.len() < 2 {
            eprintln!("SKIPPED: one processor has no crew");
            return;
        }
        let (prompts, session, told, ours) = answered(60, usize::MAX);
        let (of, model) = session.loaded().zip(session.model()).unwrap();
        let mut silent = |_| {};
        let alone =
            drive(rectify_core::answer(of, std::slice::from_ref(model), &prompts, 20, &mut silent), &Cancel::default());
        let alone = alone.unwrap().unwrap();
        let ours = ours.unwrap().unwrap();
        assert_eq!(told, prompts.len());
        assert_eq!(ours.continuations, alone.continuations);
        assert_eq!(ours.tokens, alone.tokens);
    }

    #[test]
    fn a_crew_whose_work_was_dropped_stops_and_works_again() {
        let (prompts, _, told, stopped) = answered(240, 1);
        assert!(stopped.is_none());
        assert!(told < prompts.len(), "{told} of {} prompts", prompts.len());
        assert_eq!(answered(10, usize::MAX).2, 10);
    }
}
