use rectify_protocol::{
    Above, ArchitectureKind, Blocks, Cell, EditMode, EditorSpec, FactScores, Judgement, Measured, Precision,
    Regularizer, Row, Tally, Verdict, WeightChange,
};

use crate::{Study, Sweep, figure, findings::findings, html, table::Table};

fn cell(method: &str, seed: u64, mode: EditMode) -> Cell {
    Cell {
        schema: Cell::SCHEMA,
        program: "rectify".into(),
        device: "flex".into(),
        model: "models/gpt2-xl".into(),
        model_hash: "0123".into(),
        facts: ["facts.json".into(), "4567".into()],
        index: [0, 2],
        mode,
        batch: 1,
        editor: EditorSpec::published(method, ArchitectureKind::Gpt2).unwrap(),
        covariance: None,
        tasks: vec![],
        limit: None,
        snippets: None,
        moments: None,
        hypernetwork: None,
        ignored: vec![],
        precision: Precision::F32,
        skipped: vec![],
        seed,
    }
}

fn fact(kept: Regularizer, edits: usize, item: usize, reliability: f64) -> Row {
    let scores = FactScores {
        reliability,
        generalization: None,
        locality: Some(1.0),
        portability: None,
        p_new: 0.5,
        p_true: None,
        probability: None,
    };
    Row { regularizer: kept, edits, measured: Measured::Fact { item, scores } }
}

fn answer(edits: usize, item: usize, right: bool) -> Row {
    let verdict = Verdict { parts: [("accuracy".to_owned(), Tally::one(right))].into(), unparsed: 0 };
    let judgement = Some(Judgement { paper: verdict.clone(), strict: verdict, also: Default::default() });
    let measured = Measured::Task { task: "open_qa".into(), item, judgement };
    Row { regularizer: Regularizer::None, edits, measured }
}

fn edit(edits: usize, manhattan: f64) -> Row {
    let change = WeightChange {
        name: "w".into(),
        entries: 100,
        kept: 100,
        frobenius: 1.0,
        manhattan,
        percentiles: vec![],
        above: vec![Above { threshold: 0.077, share: 0.5 }, Above { threshold: 0.171, share: 0.25 }],
        blocks: None,
    };
    let measured = Measured::Edit { item: 0, seconds: 1.0, weights: vec![change] };
    Row { regularizer: Regularizer::None, edits, measured }
}

fn sequence() -> Sweep {
    let rows = |right: bool| {
        let none = Regularizer::None;
        vec![answer(0, 0, true), edit(1, 3.0), edit(5, 9.0), fact(none, 5, 0, 1.0), answer(5, 0, right)]
    };
    let cells = [(0, true), (1, false)].map(|(seed, right)| (cell("rome", seed, EditMode::Sequential), rows(right)));
    Sweep { cells: cells.into(), ..Sweep::new("a <b>sweep</b>") }
}

#[test]
fn a_score_is_the_mean_of_its_seeds_with_their_spread() {
    let study = Study::of(&sequence()).unwrap();
    let edits: Vec<usize> = study.points.iter().map(|point| point.edits).collect();
    assert_eq!(edits, [0, 5], "between two measurements there is nothing to say");
    let score = study.points[1].scores["open_qa"];
    assert_eq!((score.mean, score.low, score.high, score.seeds), (0.5, 0.0, 1.0, 2));
    assert_eq!(study.points[1].facts, 2);
}

#[test]
fn what_was_found_stands_first_beside_the_unedited_model() {
    let none = Regularizer::None;
    let rect = Regularizer::Rect { keep: 0.4 };
    let with = |row: Row, regularizer| Row { regularizer, ..row };
    let answers = |edits: usize, kept, right: &[bool]| {
        let rows = right.iter().enumerate().map(|(item, right)| with(answer(edits, item, *right), kept));
        rows.collect::<Vec<_>>()
    };
    let rows = [
        answers(0, none, &[true, true]),
        answers(0, rect, &[true, true]),
        vec![fact(none, 5, 0, 1.0), fact(rect, 5, 0, 0.5)],
        answers(5, none, &[true, false]),
        answers(5, rect, &[true, true]),
        answers(10, none, &[false, false]), // the other sequence is not there yet
    ];
    let sweep = Sweep { cells: vec![(cell("rome", 0, EditMode::Sequential), rows.concat())], ..Sweep::new("s") };
    let study = Study::of(&sweep).unwrap();
    let text = findings(&study).into_string().replace("</td>", " ").replace("</th>", " ");
    assert!(text.contains("ROME after 5 edits"), "{text}");
    assert!(
        text.contains(
            "open QA fell most: from 1.00 to 0.50 where all of each edit was kept. It is 1.00 with RECT 40%."
        )
    );
    let row =
        |name: &str| text.split("<tr>").find(|row| row.contains(&format!("row\">{name}"))).unwrap().replace("<td>", "");
    assert!(row("not edited").contains("– – 1.00 "), "{text}");
    assert!(row("all of it").contains("1.00 1.00 0.50 ± 0.50 "), "{text}");
    assert!(row("RECT 40%").contains("0.50 1.00 1.00 "), "{text}");
    let single =
        Sweep { cells: vec![(cell("rome", 0, EditMode::Single), vec![fact(none, 1, 0, 1.0)])], ..Sweep::new("s") };
    assert_eq!(findings(&Study::of(&single).unwrap()).into_string(), "");
}

#[test]
fn single_edits_are_one_point_whichever_fact_they_write() {
    let rect = Regularizer::Rect { keep: 0.4 };
    let rows = vec![fact(rect, 1, 0, 1.0), fact(rect, 1, 1, 0.5), fact(Regularizer::None, 1, 0, 1.0)];
    let sweep = Sweep { cells: vec![(cell("rome", 0, EditMode::Single), rows)], ..Sweep::new("s") };
    let study = Study::of(&sweep).unwrap();
    let table = Table::of(&study);
    assert_eq!(table.head, ["editor", "kept", "edits", "n", "reliability", "locality"]);
    assert_eq!(table.rows[0], ["ROME", "rect 40%", "1", "2", "0.750", "1.000"]);
    assert!(table.markdown().starts_with("| editor | kept | edits | n | reliability | locality |\n|---|---|"));
    // The model is one of the paper's, so its values stand beside ours.
    let figures = figure::figures(&study);
    assert_eq!(figures[0].panels[0].curves[0].paper, [(0, 1.0), (1, 0.953)]);
}

#[test]
fn editors_of_one_method_are_told_apart_by_their_settings() {
    let mut other = cell("rome", 0, EditMode::Single);
    other.editor = other.editor.with("v_lr", 0.25.into()).unwrap();
    let rows = vec![fact(Regularizer::None, 1, 0, 1.0)];
    let cells = vec![(cell("rome", 0, EditMode::Single), rows.clone()), (other, rows)];
    let study = Study::of(&Sweep { cells, ..Sweep::new("s") }).unwrap();
    let labels: Vec<&str> = study.editors.iter().map(|editor| editor.label.as_str()).collect();
    assert_eq!(labels, ["ROME: v_lr = 0.5", "ROME: v_lr = 0.25"]);
}

#[test]
fn table_1_has_the_paper_s_line_beside_ours() {
    let study = Study::of(&sequence()).unwrap();
    let table = figure::table_1(&study).unwrap();
    assert_eq!(table.rows, [["ROME", "5", "9.0", "50.0%", "25.0%", "27072.2, 49.2%, 28.9%"]]);
}

#[test]
fn what_a_file_says_is_text_and_never_markup() {
    let mut sweep = sequence();
    sweep.cells[0].0.program = "<script>".into();
    sweep.cells[0].1.push(answer(5, 1, true));
    if let Measured::Task { task, .. } = &mut sweep.cells[0].1.last_mut().unwrap().measured {
        *task = "<i>task".into();
    }
    let page = html::body(&[sweep]).into_string();
    assert!(page.contains("a &lt;b&gt;sweep&lt;/b&gt;") && page.contains("&lt;script&gt;"));
    assert!(!page.contains("<b>sweep") && !page.contains("<script") && !page.contains("<i>task"));
}

#[test]
fn half_a_line_is_left_out_and_a_wrong_one_named() {
    let head = serde_json::to_string(&cell("rome", 0, EditMode::Single)).unwrap();
    let row = serde_json::to_string(&fact(Regularizer::None, 1, 0, 1.0)).unwrap();
    let read = |text: &str| {
        let mut sweep = Sweep::new("s");
        sweep.add_file("rome.jsonl", text);
        sweep
    };
    assert!(read("").cells.is_empty());
    assert!(read(&head[..20]).cells.is_empty());
    assert_eq!(read(&format!("{head}\n{row}\n{row}")).cells[0].1.len(), 1);
    assert_eq!(read(&format!("{head}\n")).cells[0].1.len(), 0);
    let broken = read(&format!("{head}\n{{}}\n{row}\n   \n"));
    assert_eq!(broken.cells[0].1.len(), 1, "the other rows count");
    assert_eq!(broken.problems.len(), 1, "what was blanked is no row");
    assert!(broken.problems[0].contains("rome.jsonl line 2 is no row"), "{:?}", broken.problems);
    assert!(html::body(&[broken]).into_string().contains("Left out: rome.jsonl line 2"));
    assert!(read("{}\n").problems[0].contains("rome.jsonl line 1"));
}

#[test]
fn a_measurement_that_is_there_twice_counts_once_and_is_said() {
    let head = serde_json::to_string(&cell("rome", 0, EditMode::Single)).unwrap();
    let row = |item| serde_json::to_string(&fact(Regularizer::None, 1, item, 1.0)).unwrap();
    let mut sweep = Sweep::new("s");
    sweep.add_file("rome.jsonl", &format!("{head}\n{}\n{}\n{}\n", row(0), row(0), row(1)));
    sweep.add_file("copy of rome.jsonl", &format!("{head}\n{}\n{}\n", row(1), row(2)));
    assert_eq!(sweep.cells.len(), 1);
    assert_eq!(sweep.cells[0].1.len(), 3);
    let expected = ["rome.jsonl line 3: measured", "copy of rome.jsonl line 2: measured"];
    assert_eq!(sweep.problems.len(), expected.len());
    for (problem, expected) in sweep.problems.iter().zip(expected) {
        assert!(problem.starts_with(expected), "{problem}");
    }
}

#[test]
fn rows_of_another_shape_are_left_out_and_named() {
    let mut cell = cell("rome", 0, EditMode::Sequential);
    cell.schema += 1;
    let text = serde_json::to_string(&cell).unwrap() + "\n";
    let mut sweep = Sweep::new("s");
    sweep.add_file("later.jsonl", &text);
    let [theirs, ours] = [Cell::SCHEMA + 1, Cell::SCHEMA];
    assert_eq!(sweep.problems, [format!("later.jsonl has rows of shape {theirs}; this program reads shape {ours}")]);
    assert!(sweep.cells.is_empty());
}

#[test]
fn second_moments_tell_cells_apart_by_the_first_digits_of_their_hash() {
    let with = |digit: &str| Cell { moments: Some(digit.repeat(64)), ..cell("rome", 0, EditMode::Single) };
    let rows = vec![fact(Regularizer::None, 1, 0, 1.0)];
    let cells = vec![(with("a"), rows.clone()), (with("b"), rows)];
    let study = Study::of(&Sweep { cells, ..Sweep::new("s") }).unwrap();
    let labels: Vec<&str> = study.editors.iter().map(|editor| editor.label.as_str()).collect();
    assert_eq!(labels, ["ROME: moments = aaaaaaaa", "ROME: moments = bbbbbbbb"]);
}

#[test]
fn no_cell_of_the_table_is_a_formula() {
    let mut sweep = sequence();
    sweep.name = "=HYPERLINK(\"x\")".into();
    sweep.cells.iter_mut().for_each(|(cell, _)| cell.model = "@evil".into());
    let text = crate::table::csv(&[Study::of(&sweep).unwrap()]);
    assert!(text.contains("'=HYPERLINK") && text.contains("'@evil"), "{text}");
    assert!(!text.contains("'-") && !text.contains("'0"), "numbers stay numbers: {text}");
}

#[test]
fn cells_that_differ_in_anything_are_not_mixed() {
    let mut newer = cell("rome", 0, EditMode::Single);
    newer.program = "rectify 2".into();
    let rows = vec![fact(Regularizer::None, 1, 0, 1.0)];
    let cells = vec![(cell("rome", 0, EditMode::Single), rows.clone()), (newer, rows)];
    let study = Study::of(&Sweep { cells, ..Sweep::new("s") }).unwrap();
    let labels: Vec<&str> = study.editors.iter().map(|editor| editor.label.as_str()).collect();
    assert_eq!(labels, ["ROME: program = \"rectify\"", "ROME: program = \"rectify 2\""]);
    assert!(study.points.iter().all(|point| point.facts == 1));
}

#[test]
fn an_edit_that_could_not_be_made_is_missing_at_every_later_measurement() {
    let refused = |edits| {
        let measured = Measured::Refused { item: 9, reason: "no".into() };
        Row { regularizer: Regularizer::None, edits, measured }
    };
    let rows = vec![answer(0, 0, true), refused(2), answer(5, 0, true), answer(9, 0, true)];
    let cells = vec![(cell("rome", 0, EditMode::Sequential), rows)];
    let study = Study::of(&Sweep { cells, ..Sweep::new("s") }).unwrap();
    let refused: Vec<(usize, usize)> = study.points.iter().map(|point| (point.edits, point.refused)).collect();
    assert_eq!(refused, [(0, 0), (5, 1), (9, 1)]);
}

#[test]
fn whatever_a_file_says_is_drawn_in_the_end() {
    let mut sweep = sequence();
    let rows = &mut sweep.cells[0].1;
    rows.push(fact(Regularizer::None, 5, 1, 1e308));
    rows.push(fact(Regularizer::None, 5, 2, 1e308));
    rows.push(fact(Regularizer::None, 9, 1, f64::INFINITY));
    rows.push(fact(Regularizer::None, 12, 1, -3.0));
    let mut hostile = edit(9, f64::NAN);
    if let Measured::Edit { weights, .. } = &mut hostile.measured {
        let blocks = Blocks { rows: usize::MAX, columns: 3, max: vec![], mean: vec![0.5] };
        weights[0].blocks = Some(blocks);
    }
    rows.push(hostile);
    let page = html::body(&[sweep]).into_string();
    assert!(page.contains("<svg") && !page.contains("class=\"heat\""));
}
