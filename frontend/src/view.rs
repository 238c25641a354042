//! Numbers and texts to what is drawn: plain functions, so that they can be tested without a browser.

use rectify_protocol::{Failure, Job, JobState, Kind, Probe, Progress, Step, WeightChange};

/// A probability as a person reads it: `91.2%`, never `0.0%` for something that can happen.
pub fn percent(p: f64) -> String {
    match p * 100.0 {
        p if p.is_nan() => "–".into(),
        p if p > 0.0 && p < 0.1 => "< 0.1%".into(),
        p if p < 100.0 && p > 99.9 => "> 99.9%".into(),
        p => format!("{p:.1}%"),
    }
}

/// A bar's width in CSS: at least a sliver for what is not zero.
pub fn bar_width(p: f64) -> String {
    if p > 0.0 { format!("max(2px, {:.2}%)", p.min(1.0) * 100.0) } else { "0".into() }
}

/// A token with its white space made visible: `Ondre`, `⏎`, `␣`.
pub fn token(text: &str) -> String {
    match text.trim() {
        "" if text.contains('\n') => "⏎".into(),
        "" => "␣".into(),
        word => word.replace('\n', "⏎"),
    }
}

/// `6.9 MB`, in powers of ten as files are sold.
pub fn bytes(n: u64) -> String {
    match n as f64 {
        n if n < 1e3 => format!("{n:.0} bytes"),
        n if n < 1e6 => format!("{:.0} kB", n / 1e3),
        n if n < 1e8 => format!("{:.1} MB", n / 1e6),
        n if n < 1e9 => format!("{:.0} MB", n / 1e6),
        n => format!("{:.1} GB", n / 1e9),
    }
}

/// `262,144`.
pub fn thousands(n: usize) -> String {
    let digits = n.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().map(|group| str::from_utf8(group).expect("digits are ASCII")).collect();
    groups.join(",")
}

/// Three figures, whatever the size: `412`, `4.13`, `0.00413`.
pub fn figures(x: f64) -> String {
    if x == 0.0 || !x.is_finite() {
        return if x == 0.0 { "0".into() } else { "–".into() };
    }
    let digits_before = x.abs().log10().floor() as i32 + 1;
    if !(-3..=7).contains(&digits_before) {
        return format!("{x:.2e}");
    }
    format!("{x:.*}", usize::try_from(3 - digits_before).unwrap_or(0))
}

/// `140 ms`, `1.9 s`, `2 min 5 s`.
pub fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 0.9995 => format!("{:.0} ms", s * 1000.0),
        s if s < 99.95 => format!("{s:.1} s"),
        s => format!("{} min {} s", (s / 60.0) as u64, (s % 60.0) as u64),
    }
}

/// The start of a hash that is enough to tell models apart.
pub fn short_hash(hash: &str) -> &str {
    hash.get(..7).unwrap_or(hash)
}

/// A continuation cut where its first sentence ends, for a table's cell.
pub fn first_sentence(text: &str) -> String {
    let text = text.trim();
    let end = text.char_indices().find(|(i, c)| *c == '\n' || (matches!(c, '.' | '!' | '?') && *i > 0));
    let sentence = end.map_or(text, |(i, _)| &text[..i]).trim_end_matches(',');
    match sentence.char_indices().nth(48) {
        Some((i, _)) => format!("{}…", sentence[..i].trim_end()),
        None => sentence.to_owned(),
    }
}

/// A text's last letters, from a word on, where all of it is too long.
pub fn end_of(text: &str, letters: usize) -> String {
    match text.char_indices().rev().nth(letters) {
        None => text.to_owned(),
        Some((at, _)) => {
            let rest = &text[at..];
            format!("… {}", rest.split_once(char::is_whitespace).map_or(rest, |(_, rest)| rest).trim_start())
        }
    }
}

/// A text's first letters, where all of it is too long.
pub fn start_of(text: &str, letters: usize) -> String {
    match text.char_indices().nth(letters) {
        None => text.to_owned(),
        Some((at, _)) => format!("{} …", text[..at].trim_end()),
    }
}

/// A prompt in three parts, the subject in the middle, so that it can be set apart.
pub fn around_subject<'a>(prompt: &'a str, subject: &'a str) -> (&'a str, &'a str, &'a str) {
    match prompt.find(subject) {
        Some(start) if !subject.is_empty() => (&prompt[..start], subject, prompt[start + subject.len()..].trim_end()),
        _ => (prompt.trim_end(), "", ""),
    }
}

/// What became of a paraphrase or neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether that is what one wants.
    pub good: bool,
    /// In a word or two.
    pub words: &'static str,
    /// The same as a sign, so that colour is never all there is.
    pub sign: &'static str,
}

/// A paraphrase should answer the new object.
pub fn paraphrase_verdict(probe: &Probe) -> Verdict {
    match probe.score {
        score if score >= 1.0 => Verdict { good: true, words: "follows", sign: "✓" },
        score if score > 0.0 => Verdict { good: false, words: "in part", sign: "≈" },
        _ => Verdict { good: false, words: "does not", sign: "✕" },
    }
}

/// A neighbour should answer as before.
pub fn neighbor_verdict(probe: &Probe) -> Verdict {
    match probe.score {
        score if score >= 1.0 => Verdict { good: true, words: "unchanged", sign: "✓" },
        score if score > 0.0 => Verdict { good: false, words: "in part", sign: "≈" },
        _ => Verdict { good: false, words: "moved", sign: "✕" },
    }
}

/// A curve in a box of `width × height` for an SVG path: left to right over `slots` places, the largest value on top.
/// `highest` fixes the top where curves are to be compared; zero is always the bottom.
pub fn curve(values: &[f64], slots: usize, highest: f64, width: f64, height: f64) -> String {
    let mut path = String::new();
    for (i, (x, y)) in points(values, slots, highest, width, height).into_iter().enumerate() {
        path.push_str(&format!("{}{x:.1} {y:.1}", if i == 0 { "M" } else { "L" }));
    }
    path
}

/// The places of [`curve`].
pub fn points(values: &[f64], slots: usize, highest: f64, width: f64, height: f64) -> Vec<(f64, f64)> {
    let gaps = slots.max(values.len()).max(2) - 1;
    let place = |(i, value): (usize, &f64)| {
        let share = if highest > 0.0 { (value / highest).clamp(0.0, 1.0) } else { 0.0 };
        (i as f64 * width / gaps as f64, height - share * height)
    };
    values.iter().enumerate().filter(|(_, value)| value.is_finite()).map(place).collect()
}

/// The largest loss of a trace, which is where its curve begins in all but strange cases.
pub fn highest_loss(trace: &[Step]) -> f64 {
    trace.iter().map(Step::loss).filter(|loss| loss.is_finite()).fold(0.0, f64::max)
}

/// What a session is doing, for the person who waits.
pub fn progress_words(doing: &str, progress: Option<&Progress>) -> String {
    match progress {
        Some(Progress::Fetching { done, total: Some(total), .. }) => {
            format!("Fetching the model: {} of {}", bytes(*done), bytes(*total))
        }
        Some(Progress::Fetching { done, total: None, .. }) => format!("Fetching the model: {}", bytes(*done)),
        Some(Progress::Preparing) => "Checking and loading the weights".into(),
        Some(Progress::Measuring { after: false }) => "Asking the model before the edit".into(),
        Some(Progress::Measuring { after: true }) => "Asking the edited model".into(),
        Some(Progress::SamplingContexts { done, total }) => format!("Writing contexts: {done} of {total} tokens"),
        Some(Progress::Optimizing { step, steps, .. }) => {
            format!("Optimising: step {} of {steps}", step.step + 1)
        }
        Some(Progress::Planning { done, total }) => format!("Planning the change: {done} of {total}"),
        Some(Progress::Applying) => "Changing the weights".into(),
        Some(Progress::Asking { .. }) => "Asking the model its tasks".into(),
        Some(Progress::Tracing { done, total }) => format!("Restoring states: {done} of {total}"),
        Some(Progress::Playing(_) | Progress::Row(_)) => "Writing facts one after another".into(),
        None => match doing {
            "load" => "Looking for the model",
            "edit" => "Starting the edit",
            "undo" => "Undoing the edit",
            "play" => "Fetching facts and tasks",
            _ => "Waiting for the model's answer",
        }
        .into(),
    }
}

/// How far that is, where it can be known.
pub fn progress_share(progress: Option<&Progress>) -> Option<f64> {
    let share = |done: f64, all: f64| (all > 0.0).then(|| (done / all).clamp(0.0, 1.0));
    match progress? {
        Progress::Fetching { done, total, .. } => share(*done as f64, (*total)? as f64),
        Progress::SamplingContexts { done, total }
        | Progress::Planning { done, total }
        | Progress::Tracing { done, total } => share(*done as f64, *total as f64),
        Progress::Optimizing { step, steps, .. } => share((step.step + 1) as f64, *steps as f64),
        Progress::Asking { done, total, .. } => share(*done as f64, *total as f64),
        Progress::Preparing
        | Progress::Measuring { .. }
        | Progress::Applying
        | Progress::Playing(_)
        | Progress::Row(_) => None,
    }
}

/// What computes, by the name it has in reports.
pub fn device(name: &str) -> &str {
    match name {
        "flex" => "CPU",
        "webgpu" => "WebGPU",
        other => other,
    }
}

/// Sum of absolute changes, over all matrices.
pub fn manhattan(weights: &[WeightChange]) -> f64 {
    weights.iter().map(|change| change.manhattan).sum()
}

/// `all 3 edits together`.
pub fn together(edits: usize) -> String {
    match edits {
        0 | 1 => "the edit".into(),
        2 => "both edits together".into(),
        n => format!("all {n} edits together"),
    }
}

/// What to cite, in BibTeX: RECT's paper, and this program where it lies at `address`.
pub fn citation(address: &str) -> String {
    // An address of one's own machine helps nobody else.
    let url = if address.starts_with("https://") { format!("  url = {{{address}}},\n") } else { String::new() };
    format!(
        "@inproceedings{{gu2024model,\n  \
        title = {{Model Editing Harms General Abilities of Large Language Models: Regularization to the Rescue}},\n  \
        author = {{Gu, Jia-Chen and Xu, Hao-Xiang and Ma, Jun-Yu and Lu, Pan and Ling, Zhen-Hua and Chang, Kai-Wei and \
        Peng, Nanyun}},\n  \
        booktitle = {{Proceedings of the 2024 Conference on Empirical Methods in Natural Language Processing}},\n  \
        year = {{2024}},\n  eprint = {{2401.04700}},\n  archivePrefix = {{arXiv}},\n}}\n\n\
        @misc{{rectify,\n  title = {{Rectify: editing facts in language models, and what else changes}},\n  \
        author = {{{{The Rectify contributors}}}},\n  note = {{Version {}}},\n{url}}}\n",
        env!("CARGO_PKG_VERSION")
    )
}

/// Whether a guard rejected the edit, so that the visitor may have it anyway.
pub fn refused_by_guard(failure: &Failure) -> bool {
    failure.kind == Kind::Harmful
}

/// The form's own name for a field of a fact: `paraphrases[0]` is `Rephrasing 1`.
fn label(field: &str) -> Option<String> {
    let labels = [
        ("subject", "“Subject”"),
        ("prompt", "“Prompt”"),
        ("target_new", "“Should say”"),
        ("target_true", "“Now says”"),
        ("paraphrases", "Rephrasing"),
        ("neighbors", "Neighbour"),
    ];
    let (name, number) = field.strip_suffix(']').and_then(|field| field.split_once('[')).unwrap_or((field, ""));
    let (_, label) = labels.iter().find(|(known, _)| *known == name)?;
    Some(match number.parse::<usize>() {
        Ok(number) => format!("{label} {}", number + 1),
        Err(_) => (*label).to_owned(),
    })
}

/// A failure as a sentence in the form's own words: ``“Should say” is empty.``
pub fn sentence(failure: &Failure) -> String {
    let field = failure.field.as_deref();
    let rest = field.and_then(|field| failure.message.strip_prefix(field));
    let words = match (rest, field.and_then(label)) {
        (Some(rest), Some(label)) => label + rest,
        _ => failure.message.clone(),
    };
    let words = words.trim_end_matches('.');
    let end = if words.ends_with(['?', '!']) { "" } else { "." };
    if words.split(' ').next().is_some_and(|first| first.contains(['.', '/'])) {
        return format!("{words}{end}"); // it begins with a file's name
    }
    let mut letters = words.chars();
    let first = letters.next().map(|letter| letter.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}{end}", letters.as_str())
}

/// A time that a person waits.
pub fn duration_words(seconds: f64) -> String {
    match seconds {
        ..90.0 => format!("{seconds:.0} s"),
        ..5400.0 => format!("{:.0} min", seconds / 60.0),
        ..172_800.0 => format!("{:.1} h", seconds / 3600.0),
        _ => format!("{:.1} days", seconds / 86_400.0),
    }
}

/// How many rows of a job there are.
pub fn rows_words(job: &Job) -> String {
    let left = job.seconds_left.map_or_else(String::new, |left| format!(", {} left", duration_words(left)));
    format!("{} of {}{left}", job.rows, job.expected)
}

/// Where a job stands, as a sentence.
pub fn job_words(job: &Job) -> String {
    let rows = format!("{} {}", rows_words(job), job.request.work.unit());
    let note = job.note.as_ref().map_or_else(String::new, |note| format!(" {}", sentence(&Failure::bad_input(note))));
    match job.state {
        JobState::Queued => format!("Waits for its turn; {rows}.{note}"),
        JobState::Running => format!("Running: {rows}.{note}"),
        JobState::Done => format!("Done: every result is there, {} {}.", job.rows, job.request.work.unit()),
        JobState::Failed => format!("Stopped with {rows}.{note}"),
        JobState::Cancelled => format!("Cancelled with {rows}; what was measured is kept."),
    }
}

/// How long a grid took before on this server; empty where none was run.
pub fn rate_words(jobs: &[Job], template: &str) -> String {
    let before =
        jobs.iter().find(|job| job.state == JobState::Done && job.request.work.name() == template && job.attempt == 1);
    let Some((job, ended)) = before.and_then(|job| Some((job, job.ended?))) else {
        return "How long it takes is said once it has made some rows.".into();
    };
    let seconds = ended.saturating_sub(job.created) as f64;
    format!("Such a run took {} before: {} rows in {} parts.", duration_words(seconds), job.rows, job.parts.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(found: impl Into<String>, expected: &str) {
        assert_eq!(found.into(), expected);
    }

    #[test]
    fn small_and_large_probabilities_are_never_rounded_to_never_and_always() {
        check(percent(0.9123), "91.2%");
        check(percent(0.00001), "< 0.1%");
        check(percent(0.99999), "> 99.9%");
        check(percent(0.0), "0.0%");
        check(percent(1.0), "100.0%");
        check(percent(f64::NAN), "–");
    }

    #[test]
    fn numbers_are_written_for_people() {
        check(bytes(812), "812 bytes");
        check(bytes(6_900_000), "6.9 MB");
        check(bytes(548_000_000), "548 MB");
        check(thousands(7), "7");
        check(thousands(262_144), "262,144");
        check(thousands(1_000), "1,000");
        check(figures(412.57), "413");
        check(figures(0.04126), "0.0413");
        check(figures(0.0), "0");
        check(duration(0.14), "140 ms");
        check(duration(1.94), "1.9 s");
        check(duration(125.0), "2 min 5 s");
        check(short_hash("7c1ef03a11"), "7c1ef03");
    }

    #[test]
    fn white_space_in_a_token_can_be_seen() {
        check(token(" word"), "word");
        check(token("\n"), "⏎");
        check(token(" "), "␣");
    }

    #[test]
    fn a_continuation_is_cut_after_its_first_sentence() {
        check(first_sentence(" a town. And more"), "a town");
        check(first_sentence("a town\nand more"), "a town");
        check(first_sentence(&"word ".repeat(30)), "word word word word word word word word word wor…");
    }

    #[test]
    fn a_long_text_is_cut_at_either_end() {
        check(end_of("short", 10), "short");
        check(end_of("one two three four", 10), "… three four");
        check(start_of("one two three four", 8), "one two …");
    }

    #[test]
    fn a_subject_is_found_in_its_prompt() {
        assert_eq!(around_subject("Is Ada born in ", "Ada"), ("Is ", "Ada", " born in"));
        assert_eq!(around_subject("Is Ida born in", "Ada"), ("Is Ida born in", "", ""));
        assert_eq!(around_subject("Is Ida", ""), ("Is Ida", "", ""));
    }

    #[test]
    fn a_curve_fills_its_box_from_left_to_right() {
        check(curve(&[4.0, 2.0, 0.0], 3, 4.0, 100.0, 50.0), "M0.0 0.0L50.0 25.0L100.0 50.0");
        check(curve(&[4.0], 3, 4.0, 100.0, 50.0), "M0.0 0.0");
        check(curve(&[], 3, 0.0, 100.0, 50.0), "");
        check(curve(&[1.0, f64::NAN, 1.0], 3, 1.0, 100.0, 50.0), "M0.0 0.0L100.0 0.0");
    }

    #[test]
    fn only_a_full_score_is_good() {
        let probe = |score| Probe { prompt: String::new(), before: String::new(), after: String::new(), score };
        assert_eq!(paraphrase_verdict(&probe(1.0)), Verdict { good: true, words: "follows", sign: "✓" });
        assert_eq!(paraphrase_verdict(&probe(0.5)), Verdict { good: false, words: "in part", sign: "≈" });
        assert_eq!(neighbor_verdict(&probe(0.0)), Verdict { good: false, words: "moved", sign: "✕" });
        assert_eq!(neighbor_verdict(&probe(f64::NAN)), Verdict { good: false, words: "moved", sign: "✕" });
    }

    #[test]
    fn a_citation_is_two_entries_with_their_braces_closed() {
        for address in ["https://example.org/rectify/", "http://127.0.0.1:8080/"] {
            let text = citation(address);
            assert_eq!(text.matches('{').count(), text.matches('}').count(), "{text}");
            assert_eq!(text.lines().filter(|line| line.starts_with('@')).count(), 2);
            assert_eq!(text.contains("url = {"), address.starts_with("https"));
        }
    }

    #[test]
    fn only_a_guard_can_be_overruled() {
        assert!(refused_by_guard(&Failure::new(Kind::Harmful, "the update is 12 times as large as the matrix")));
        assert!(!refused_by_guard(&Failure::bad_field(
            "max_relative_norm",
            "is 0; it must be a finite number above 0"
        )));
        assert!(!refused_by_guard(&Failure::bad_input("the update of w is not a finite number")));
    }

    #[test]
    fn edits_are_counted_in_words() {
        check(together(1), "the edit");
        check(together(2), "both edits together");
        check(together(3), "all 3 edits together");
    }

    #[test]
    fn a_failure_speaks_of_the_form_and_not_of_fields() {
        check(sentence(&Failure::bad_field("target_new", "is empty")), "“Should say” is empty.");
        check(sentence(&Failure::bad_field("paraphrases[0]", "is empty")), "Rephrasing 1 is empty.");
        check(sentence(&Failure::bad_input("no model is loaded")), "No model is loaded.");
        check(sentence(&Failure::bad_input("config.json: no n_head")), "config.json: no n_head.");
        check(sentence(&Failure::bad_input("is it there?")), "Is it there?");
    }
}
