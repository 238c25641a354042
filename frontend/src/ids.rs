//! The element ids that a browser test may rely on, and what their `data-` attributes say.

/// Text: what the model is doing or why there is none. `data-state` is `starting`, `loading`, `ready`,
/// `empty` (no model could be loaded) or `stopped` (the session is gone); when ready, `data-model`, `data-hash`,
/// `data-device` (`flex`, `webgpu`, …) and `data-edits` (a number) describe it.
pub const MODEL_STATUS: &str = "model-status";
/// The model picker, a `select` whose values are catalog ids.
pub const MODEL: &str = "model";
/// Radio buttons: where the session runs.
pub const PLACE_BROWSER: &str = "place-browser";
/// See [`PLACE_BROWSER`].
pub const PLACE_SERVER: &str = "place-server";
/// Radio buttons: what computes in the browser.
pub const DEVICE_CPU: &str = "device-cpu";
/// See [`DEVICE_CPU`].
pub const DEVICE_WEBGPU: &str = "device-webgpu";
/// Starts the session and loads the model again. There only when `data-state` of the status is `empty` or `stopped`.
pub const RESTART_BUTTON: &str = "restart-button";

/// The fact form's inputs.
pub const SUBJECT: &str = "subject";
/// See [`SUBJECT`].
pub const PROMPT: &str = "prompt";
/// See [`SUBJECT`].
pub const TARGET_NEW: &str = "target-new";
/// See [`SUBJECT`].
pub const TARGET_TRUE: &str = "target-true";
/// Fills the form with the next ready fact.
pub const EXAMPLE_BUTTON: &str = "example-button";

/// The method picker, a `select` whose values are the methods' names.
pub const METHOD: &str = "method";
/// Text: what the chosen method needs and the model comes without; empty when nothing is missing.
pub const LACKS: &str = "lacks";
/// Radio buttons named `regularizer`, with the ids `regularizer-none`, `regularizer-rect`, `regularizer-random` and
/// `regularizer-more`, which shows more of them: `regularizer-pca`, `regularizer-low_rank`, `regularizer-prune`.
pub const REGULARIZER: &str = "regularizer";
/// The share the regularizer keeps of the next edit, in percent: `input type=range`.
pub const KEEP: &str = "keep";

/// Edits the fact in the form; when the newest edit wrote the same fact, takes that back first.
/// Disabled while something runs and while the form cannot be used.
pub const EDIT_BUTTON: &str = "edit-button";
/// Edits although a guard has refused to. There only after it has.
pub const ANYWAY_BUTTON: &str = "anyway-button";
/// Drops what runs. There only while something runs.
pub const CANCEL_BUTTON: &str = "cancel-button";
/// Takes back the newest edit. There only when there is one.
pub const UNDO_BUTTON: &str = "undo-button";
/// What is being waited for. `data-doing` is `idle` or the command's name (`load`, `ask`, `edit`, `undo`);
/// `data-step` counts the evaluations of a running edit.
pub const PROGRESS: &str = "progress";
/// What cannot be done and why. `data-kind` is `fact` (the form), `bad_input`, `not_found`, `device` or `internal`;
/// empty, without `data-kind`, when all is well.
pub const ERROR: &str = "error";

/// The fact before and after. `data-state` is `empty`, `running` or `done`; `data-edits` counts the model's edits
/// right after the one that is shown.
pub const RESULT: &str = "result";
/// Text: the generated continuation before the edit.
pub const ANSWER_BEFORE: &str = "answer-before";
/// Text: the same after it. There only in the state `done`.
pub const ANSWER_AFTER: &str = "answer-after";

/// The share that is kept of the edits the model carries, in percent: `input type=range`.
pub const KEEP_NOW: &str = "keep-now";
/// What holds it. `data-keep` is the share of what is shown; `data-state` is `waiting` until that is the slider's, then
/// `idle`. There only while an edit is shown.
pub const KEEP_NOW_CARD: &str = "keep-now-card";
/// How far the weights are from the unedited ones. `data-manhattan` is the sum of absolute changes, unrounded.
/// There only while an edit is shown.
pub const CHANGE: &str = "change";

/// A prompt of the visitor's own.
pub const ASK_INPUT: &str = "ask-input";
/// Puts it to the model as it is now.
pub const ASK_BUTTON: &str = "ask-button";
/// Text: the continuation. `data-edits` says how many edits the model carried; `data-top` is the list of
/// `[token, probability]` as JSON, unrounded, so that a test can compare answers bit for bit.
pub const ASK_ANSWER: &str = "ask-answer";
/// Turns light to dark and back.
pub const THEME_BUTTON: &str = "theme-button";

/// Copies a link to what is set up.
pub const LINK_BUTTON: &str = "link-button";
/// What became of that. `data-state` is `nothing`, `done`, `by-hand` or `failed`.
pub const LINK_OUTCOME: &str = "link-outcome";
/// Text: why the page does not show what a link was meant to; empty when it does.
pub const LINK_PROBLEM: &str = "link-problem";
/// Copies what to cite.
pub const CITATION_BUTTON: &str = "citation-button";
/// See [`LINK_OUTCOME`].
pub const CITATION_OUTCOME: &str = "citation-outcome";
/// An embedded demonstration. `data-scene` is `edit` or `abilities`; absent when its address was refused.
pub const DEMO: &str = "demo";
/// Text: why there is no demonstration, or what stands in its way.
pub const DEMO_PROBLEM: &str = "demo-problem";
/// Agrees to a large download. There only while that is asked.
pub const DEMO_AGREE: &str = "demo-agree";
/// Declines it.
pub const DEMO_DECLINE: &str = "demo-decline";
/// A link to the same set-up in the playground.
pub const DEMO_PLAYGROUND: &str = "demo-playground";

/// Links to the pages: `page-edit`, `page-sweeps` and `page-runs`.
pub const PAGE: &str = "page";
/// Where the folder of a sweep is chosen, an `input type=file`.
pub const SWEEP_FOLDER: &str = "sweep-folder";
/// Where files of rows are chosen.
pub const SWEEP_FILES: &str = "sweep-files";
/// The server's sweeps, a `select` of their names.
pub const SWEEP_NAME: &str = "sweep-name";
/// A link to a report for whoever has no rows.
pub const SWEEP_EXAMPLE: &str = "sweep-example";
/// What is drawn. `data-state` is `empty`, `reading`, `drawn` or `failed`.
pub const SWEEP_VIEW: &str = "sweep-view";

/// The model's abilities. `data-state` is `asking` until all of them are of the weights as they are now, then `known`;
/// `data-edits` counts the edits. Each has an element `abilities-TASK` whose `data-score` is the paper's score,
/// unrounded, and whose `data-lost` counts the answers that the edits cost.
pub const ABILITIES: &str = "abilities";
/// Asks every record of each task from now on. There only while a sample is asked.
pub const ASK_MORE: &str = "ask-more";
/// Many edits in a row, and what they cost. `data-state` is `empty`, `running` or `done`.
pub const PLAY: &str = "play";
/// Makes them.
pub const PLAY_BUTTON: &str = "play-button";
/// Downloads what was measured as a sweep's file of rows. There only when all is done.
pub const PLAY_ROWS: &str = "play-rows";

/// Heavy runs. `data-state` is `asking`, `none` (no server), `away`, `locked` (it asks for its token) or `open`.
pub const RUNS: &str = "runs";
/// What the server refused.
pub const RUNS_ERROR: &str = "runs-error";
/// Where the token is typed.
pub const RUNS_TOKEN: &str = "runs-token";
/// The grids, a `select` of their ids.
pub const RUN_TEMPLATE: &str = "run-template";
/// The models, a `select` of their ids; empty for the grid's own.
pub const RUN_MODEL: &str = "run-model";
/// Text: how much memory it needs beside what is there.
pub const RUN_MEMORY: &str = "run-memory";
/// How many of the grid's facts.
pub const RUN_FACTS: &str = "run-facts";
/// The seeds, with commas.
pub const RUN_SEEDS: &str = "run-seeds";
/// How many processes share it.
pub const RUN_PARTS: &str = "run-parts";
/// A box: with the editor and the regularizer of the page for edits.
pub const RUN_MINE: &str = "run-mine";
/// Text: how long such a run took before.
pub const RUN_RATE: &str = "run-rate";
/// Sends it.
pub const RUN_BUTTON: &str = "run-button";
/// The table of jobs; a row has `data-job`, its id, and `data-state`.
pub const JOBS: &str = "jobs";
/// The job that is watched. `data-state` is `asking` or the job's state, `data-rows` counts its rows.
pub const RUN_VIEW: &str = "run-view";
