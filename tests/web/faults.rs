//! A graphics card that is not there, is lost, or promises no more than it must.

use rectify_protocol::{
    Command, Contexts, EditReport, EditSpec, EditorSpec, Event, Fact, Failure, Guards, Kind, ModelSource, RomeSpec,
    ValueSpec,
};

use crate::{driver::Browser, site::Site, worker::Worker};

const LOADER: &str = "webgpu/rectify-worker_loader.js";

/// A worker that computes on WebGPU, with a script before its own.
fn open(test: &'static str, script: &str) -> (Site, Browser) {
    let site = Site::serve(test);
    site.prefix(LOADER, script);
    let browser = Browser::open(test);
    browser.go(&format!("{}rectify-demo.js", site.address));
    (site, browser)
}

fn edit() -> Command {
    let fact = Fact {
        subject: "Willa Farolde".into(),
        prompt: "Willa Farolde was born in the city of".into(),
        target_new: "Marrowfield".into(),
        ..Fact::default()
    };
    let value = ValueSpec { v_num_grad_steps: 4, contexts: Contexts::Given(vec!["{}".into()]), ..ValueSpec::default() };
    let editor = EditorSpec::Rome(RomeSpec { layers: Some(vec![1]), value, ..RomeSpec::default() });
    Command::Edit { facts: vec![fact], spec: EditSpec { guards: Guards::NONE, ..EditSpec::new(editor) } }
}

#[track_caller]
fn failure(event: Option<Event>) -> Failure {
    match event {
        Some(Event::Failed(failure)) => failure,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn report(event: Option<Event>) -> EditReport {
    match event {
        Some(Event::Edited(report)) => report,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_browser_without_a_card_says_so() {
    let (_site, browser) = open("no-card", "navigator.gpu.requestAdapter = async () => null;\n");
    let mut gpu = Worker::start(&browser, "webgpu/");
    let load = Command::Load(ModelSource::Bundled { id: "demo-nano".into() });
    let failure = failure(gpu.request(load).pop());
    assert_eq!(failure.kind, Kind::Device);
    assert!(failure.message.starts_with("WebGPU gave no device"), "{failure}");
}

/// The device goes in the middle of the optimisation.
#[test]
fn a_card_that_is_lost_in_an_edit_says_so_and_another_worker_has_another() {
    let (_site, browser) = open("lost-card", include_str!("losing.js"));
    let mut gpu = Worker::start(&browser, "webgpu/");
    gpu.load("demo-nano");
    for command in [edit(), Command::Ask { prompt: "The".into(), tokens: 1, top: 1 }] {
        let failure = failure(gpu.request(command).pop());
        assert_eq!(failure.kind, Kind::Device);
        for part in ["the device failed", "load the model again", "compute on the processor"] {
            assert!(failure.message.contains(part), "{failure}");
        }
        assert!(!failure.message.contains('\n'), "{failure}");
    }
    let mut next = Worker::start(&browser, "webgpu/");
    next.load("demo-nano");
    assert_eq!(next.ask("The", 1, 1).top.len(), 1);
}

/// Buffers of 128 MiB and 256 units a workgroup are what WebGPU promises.
#[test]
fn a_card_with_the_least_limits_makes_the_same_edit() {
    let norm = |script: &str, test| {
        let (_site, browser) = open(test, script);
        let mut gpu = Worker::start(&browser, "webgpu/");
        gpu.load("demo-nano");
        report(gpu.request(edit()).pop()).delta_norm
    };
    let (least, usual) = (norm(include_str!("least.js"), "least-limits"), norm("", "usual-limits"));
    assert!((least / usual - 1.0).abs() < 1e-4, "{least} {usual}");
}
