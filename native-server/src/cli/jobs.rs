//! `rectify jobs`: heavy runs on a server, from a terminal.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    ops::Range,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rectify_protocol::{Failure, Job, JobRequest, JobState, JobWork, Kind, Machine, Precision, RowsFile, SweepChange};
use serde::de::DeserializeOwned;

use super::settings;
use crate::{io, progress::Line, tasks};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Subcommands {
    /// What the server runs jobs on, and the grids and models they may be made of
    Offer(Server),
    /// Ask for a grid of the server's, changed where you say so; prints the job's id
    Submit(Submit),
    /// Ask what a model of the server's can do, as `rectify eval` does; prints the job's id
    Eval(Eval),
    /// Ask for second moments of keys, as `rectify stats` gathers them; prints the job's id
    Stats(Stats),
    /// Ask for MEND's hypernetwork, as `rectify mend train` makes it; prints the job's id
    Mend(Mend),
    /// Every job and how far it is
    List(Server),
    /// Follow a job to its end. Exit code 0 when it is done, 1 when it failed, 130 when it was cancelled, 75 when the server
    /// has not answered for ten minutes
    Watch(One),
    /// Stop a job; what was measured is kept
    Cancel(One),
    /// Go on with a job that was cancelled or has failed
    Resume(One),
    /// Delete a job that has ended, with its results
    Delete(One),
    /// What a job's processes said
    Log(One),
    /// Fetch a job's report, drawn of the rows there are
    Report(Fetch),
    /// Fetch a job's results into a folder: rows for `rectify report`, or the files that its process wrote
    Rows(Fetch),
}

/// The server, and who asks.
#[derive(Debug, clap::Args)]
pub(super) struct Server {
    /// Where the server is
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    server: String,
    /// The file that holds the server's token, where it asks for one; also RECTIFY_TOKEN, the token itself
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct One {
    /// The job's id
    id: String,
    #[command(flatten)]
    server: Server,
}

#[derive(Debug, clap::Args)]
pub(super) struct Fetch {
    /// The job's id
    id: String,
    /// Where to: for `report` a file that ends in .html (figures), .csv (a table) or .json (scores), for `rows` a folder
    #[arg(long, value_name = "PATH")]
    out: PathBuf,
    #[command(flatten)]
    server: Server,
}

#[derive(Debug, clap::Args)]
pub(super) struct Submit {
    /// The grid's id: `rectify jobs offer` lists them
    template: String,
    /// Another model of the server's
    #[arg(long, value_name = "ID")]
    model: Option<String>,
    /// Which records of the grid's facts: a number, or A..B without B itself
    #[arg(long, value_parser = settings::index, value_name = "A..B")]
    index: Option<Range<usize>>,
    /// The seeds
    #[arg(long, value_delimiter = ',', value_name = "N,N,…")]
    seeds: Vec<u64>,
    /// What is kept of each update: none, rect 40%, random 40%, …
    #[arg(long, value_delimiter = ',', value_name = "R,R,…")]
    regularizers: Vec<String>,
    /// When to measure
    #[arg(long, value_delimiter = ',', value_name = "N,N,…")]
    edits: Vec<usize>,
    /// At most so many records of each task
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Any other change of the grid, as JSON: {"editors": [{"method": "rome"}]}
    #[arg(long, value_name = "JSON")]
    change: Option<String>,
    /// How many processes share it
    #[arg(long, default_value_t = 1, value_name = "N")]
    parts: usize,
    #[command(flatten)]
    asked: Asked,
}

/// What every request has. `--precision` is one of the program's flags.
#[derive(Debug, clap::Args)]
struct Asked {
    /// What this request is called: sent again under the same name, it is the same job
    #[arg(long, value_name = "NAME")]
    key: Option<String>,
    #[command(flatten)]
    server: Server,
}

#[derive(Debug, clap::Args)]
pub(super) struct Eval {
    /// A model of the server's
    #[arg(long, value_name = "ID")]
    model: String,
    /// A folder of tasks of the server's
    #[arg(long, value_name = "ID")]
    data: String,
    #[arg(long, value_delimiter = ',', default_value = "all", help = tasks::words())]
    tasks: Vec<String>,
    /// At most so many records of each, evenly spaced through its file
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Edits of the server's, applied first
    #[arg(long, value_name = "ID")]
    edits: Option<String>,
    /// Keep also each record's prompts, replies and verdicts
    #[arg(long)]
    log_samples: bool,
    #[command(flatten)]
    asked: Asked,
}

#[derive(Debug, clap::Args)]
pub(super) struct Stats {
    /// A model of the server's
    #[arg(long, value_name = "ID")]
    model: String,
    /// A text of the server's
    #[arg(long, value_name = "ID")]
    text: String,
    /// Which layers: 4,5
    #[arg(long, value_delimiter = ',', required = true)]
    layers: Vec<usize>,
    /// How many tokens to average over
    #[arg(long, value_name = "N")]
    tokens: usize,
    #[command(flatten)]
    asked: Asked,
}

#[derive(Debug, clap::Args)]
pub(super) struct Mend {
    /// A model of the server's
    #[arg(long, value_name = "ID")]
    model: String,
    /// The facts to train on, of the server's
    #[arg(long, value_name = "ID")]
    facts: String,
    /// The facts by which to choose, of the server's
    #[arg(long, value_name = "ID")]
    validation: String,
    /// At most so many steps
    #[arg(long, default_value_t = 100_000, value_name = "N")]
    steps: usize,
    /// What differs from the model's default settings, as JSON: {"lr": 1e-5}
    #[arg(long, value_name = "JSON", default_value = "{}")]
    settings: String,
    #[command(flatten)]
    asked: Asked,
}

pub(super) fn run(command: &Subcommands, precision: Precision, out: &mut dyn Write) -> Result<(), Failure> {
    let ask = |work, parts, asked: &Asked, out| send(JobRequest { work, parts, precision }, asked, out);
    match command {
        Subcommands::Offer(server) => offer(&server.client()?, server.json, out),
        Subcommands::Submit(args) => ask(args.work()?, args.parts, &args.asked, out),
        Subcommands::Eval(args) => ask(args.work(), 1, &args.asked, out),
        Subcommands::Stats(args) => ask(args.work(), 1, &args.asked, out),
        Subcommands::Mend(args) => ask(args.work()?, 1, &args.asked, out),
        Subcommands::List(server) => list(&server.client()?, server.json, out),
        Subcommands::Watch(one) => watch(one, out),
        Subcommands::Cancel(one) => tell(one, &one.server.client()?.post(&format!("jobs/{}/cancel", one.id()?))?, out),
        Subcommands::Resume(one) => tell(one, &one.server.client()?.post(&format!("jobs/{}/resume", one.id()?))?, out),
        Subcommands::Delete(one) => one.server.client()?.delete(&format!("jobs/{}", one.id()?)),
        Subcommands::Log(one) => io::print(out, &one.server.client()?.text(&format!("jobs/{}/log", one.id()?))?),
        Subcommands::Report(fetch) => report(fetch, out),
        Subcommands::Rows(fetch) => rows(fetch, out),
    }
}

impl Submit {
    fn work(&self) -> Result<JobWork, Failure> {
        let given: SweepChange = json("--change", self.change.as_deref().unwrap_or("{}"))?;
        fn some<T: Clone>(list: &[T]) -> Option<Vec<T>> {
            (!list.is_empty()).then(|| list.to_vec())
        }
        let change = SweepChange {
            model: self.model.clone().or(given.model),
            index: self.index.as_ref().map(|range| [range.start, range.end]).or(given.index),
            seeds: some(&self.seeds).or(given.seeds),
            regularizers: some(&self.regularizers).or(given.regularizers),
            edits: some(&self.edits).or(given.edits),
            limit: self.limit.or(given.limit),
            ..given
        };
        Ok(JobWork::Sweep { template: self.template.clone(), change })
    }
}

impl Eval {
    fn work(&self) -> JobWork {
        let Self { model, data, tasks, limit, edits, log_samples, .. } = self;
        JobWork::Evaluation {
            model: model.clone(),
            edits: edits.clone(),
            data: data.clone(),
            tasks: tasks.clone(),
            limit: *limit,
            log_samples: *log_samples,
        }
    }
}

impl Stats {
    fn work(&self) -> JobWork {
        let Self { model, text, layers, tokens, .. } = self;
        JobWork::Statistics { model: model.clone(), text: text.clone(), layers: layers.clone(), tokens: *tokens }
    }
}

impl Mend {
    fn work(&self) -> Result<JobWork, Failure> {
        let Self { model, facts, validation, steps, settings, .. } = self;
        Ok(JobWork::MendTraining {
            model: model.clone(),
            facts: facts.clone(),
            validation: validation.clone(),
            steps: *steps,
            settings: json("--settings", settings)?,
        })
    }
}

fn json<T: DeserializeOwned>(flag: &str, text: &str) -> Result<T, Failure> {
    serde_json::from_str(text).map_err(|error| Failure::bad_field(flag, format_args!("cannot be read: {error}")))
}

fn send(request: JobRequest, asked: &Asked, out: &mut dyn Write) -> Result<(), Failure> {
    let body = serde_json::to_string(&request).map_err(|error| io::internal(error.to_string()))?;
    // A request whose answer is lost can be sent again by the same command only under a name.
    let job: Job = asked.server.client()?.send("jobs", &body, asked.key.as_deref())?;
    if asked.server.json {
        return io::print(out, &io::to_json(&job)?);
    }
    let (unit, parts) = (job.request.work.unit(), job.parts.len());
    let parts = if parts == 1 { String::new() } else { format!(" in {parts} parts") };
    io::say(&format!("{} {unit}{parts}; follow it with: rectify jobs watch {}", job.expected, job.id));
    io::print(out, &format!("{}\n", job.id))
}

fn offer(client: &Client, json: bool, out: &mut dyn Write) -> Result<(), Failure> {
    let machine: Machine = client.get("machine")?;
    if json {
        return io::print(out, &io::to_json(&machine)?);
    }
    let memory = machine.memory.map_or_else(String::new, |bytes| format!(", {} GiB of memory", bytes >> 30));
    let mut text = format!("{}: {}, {} processors{memory}\n", machine.program, machine.device, machine.processors);
    let Some(offer) = machine.offer else {
        return io::print(out, &(text + "it takes no jobs\n"));
    };
    let at_once = offer.at_once.map_or_else(String::new, |n| format!(", {n} at a time"));
    text += &format!("jobs by {}{at_once}\n\n", offer.dispatcher);
    let wide = offer.templates.iter().map(|template| template.id.len()).max().unwrap_or(0);
    for template in &offer.templates {
        let lacks = template.missing.as_ref().map_or_else(String::new, |lacks| format!(" [needs {lacks}]"));
        text += &format!("{:wide$}  {}{lacks}\n", template.id, template.title);
    }
    let models: Vec<String> = offer.models.iter().map(|model| model.id.clone()).collect();
    text += "\n";
    let lists = [
        ("models", models),
        ("facts", offer.facts),
        ("folders of tasks", offer.tasks),
        ("texts", offer.texts),
        ("edits", offer.edits),
    ];
    for (what, ids) in lists.iter().filter(|(_, ids)| !ids.is_empty()) {
        text += &format!("{what}: {}\n", ids.join(", "));
    }
    io::print(out, &text)
}

fn list(client: &Client, json: bool, out: &mut dyn Write) -> Result<(), Failure> {
    let jobs: Vec<Job> = client.get("jobs")?;
    if json {
        return io::print(out, &io::to_json(&jobs)?);
    }
    let lines: String = jobs.iter().map(|job| line(job) + "\n").collect();
    io::print(out, if lines.is_empty() { "there are no jobs\n" } else { &lines })
}

/// A job as a line.
fn line(job: &Job) -> String {
    let left = job.seconds_left.map_or_else(String::new, |left| format!(", {left:.0} s left"));
    let note = job.note.as_ref().map_or_else(String::new, |note| format!(": {note}"));
    let (id, state, title, unit) = (&job.id, job.state.name(), job.request.work.title(), job.request.work.unit());
    format!("{id}  {state:9}  {} of {} {unit}{left}  {title}{note}", job.rows, job.expected)
}

fn tell(one: &One, job: &Job, out: &mut dyn Write) -> Result<(), Failure> {
    let text = if one.server.json { io::to_json(job)? } else { line(job) + "\n" };
    io::print(out, &text)
}

fn watch(one: &One, out: &mut dyn Write) -> Result<(), Failure> {
    let client = one.server.client()?;
    let shown = Line::new();
    let (mut seen, mut away) = (None, None);
    loop {
        // A server that was started again goes on telling where it stopped.
        let job = match follow(&client, one.id()?, &mut seen, &shown) {
            Ok(Some(job)) => job,
            Ok(None) => {
                away = None;
                continue;
            }
            Err(failure) if failure.kind == Kind::Device => {
                let since = *away.get_or_insert_with(|| {
                    shown.say(&format!("{failure}; trying again for {} minutes", PATIENCE.as_secs() / 60));
                    Instant::now()
                });
                if since.elapsed() > PATIENCE {
                    let message = format!("{failure}; the job goes on when the server does, and so does this command");
                    return Err(Failure::new(Kind::Unfinished, message));
                }
                std::thread::sleep(Duration::from_secs(2));
                continue;
            }
            Err(failure) => return Err(failure),
        };
        tell(one, &job, out)?;
        let note = job.note.clone().unwrap_or_default();
        return match job.state {
            JobState::Failed => Err(Failure::new(Kind::Internal, format!("job {} failed: {note}", job.id))),
            JobState::Cancelled => Err(Failure::new(Kind::Cancelled, format!("job {} was cancelled", job.id))),
            _ => Ok(()),
        };
    }
}

/// How long a server that does not answer is waited for.
const PATIENCE: Duration = Duration::from_secs(600);

/// Reads events until the job ends; `None` when the stream does before.
fn follow(client: &Client, id: &str, seen: &mut Option<String>, shown: &Line) -> Result<Option<Job>, Failure> {
    let (mut data, from) = (String::new(), seen.clone());
    for line in client.lines(&format!("jobs/{id}/events"), from.as_deref())? {
        let Ok(line) = line else { return Ok(None) };
        if let Some(id) = line.strip_prefix("id:") {
            *seen = Some(id.trim().to_owned());
        } else if let Some(more) = line.strip_prefix("data:") {
            data += more.trim_start();
        } else if line.is_empty() && !data.is_empty() {
            let job: Job = parsed(&data)?;
            data.clear();
            let left = job.seconds_left.map_or_else(String::new, |left| format!(", {left:.0} s left"));
            let note = job.note.as_ref().map_or_else(String::new, |note| format!(": {note}"));
            let text = format!("{}: {}{left}{note}", job.state.name(), job.request.work.unit());
            shown.show_count(&text, job.rows as u64, job.expected as u64);
            if job.state.has_ended() {
                return Ok(Some(job));
            }
        }
    }
    Ok(None)
}

fn report(fetch: &Fetch, out: &mut dyn Write) -> Result<(), Failure> {
    let form = fetch.out.extension().and_then(|extension| extension.to_str());
    let form = form.filter(|form| ["html", "csv", "json"].contains(form)).ok_or_else(|| {
        Failure::bad_field("--out", format_args!("is {:?}; name a file that ends in .html, .csv or .json", fetch.out))
    })?;
    let text = fetch.server.client()?.text(&format!("jobs/{}/report.{form}", name(&fetch.id)?))?;
    io::write(&fetch.out, text.as_bytes())?;
    io::print(out, &format!("{}\n", fetch.out.display()))
}

fn rows(fetch: &Fetch, out: &mut dyn Write) -> Result<(), Failure> {
    let client = fetch.server.client()?;
    let id = name(&fetch.id)?;
    let files: Vec<RowsFile> = client.get(&format!("jobs/{id}/rows"))?;
    fs::create_dir_all(&fetch.out).map_err(|error| io::cannot_write(&fetch.out, &error))?;
    for RowsFile { name, .. } in &files {
        let plain = Path::new(name).components().count() == 1 && !name.starts_with('.');
        if !plain || !ENDINGS.iter().any(|ending| name.ends_with(ending)) {
            return Err(Failure::bad_input(format!("the server names a file {name:?}, which is no file of results")));
        }
        client.download(&format!("jobs/{id}/rows/{name}"), &fetch.out.join(name))?;
    }
    io::print(out, &format!("{} files in {}\n", files.len(), fetch.out.display()))
}

/// What files of results are called.
const ENDINGS: [&str; 3] = [".jsonl", ".json", ".safetensors"];

impl One {
    fn id(&self) -> Result<&str, Failure> {
        name(&self.id)
    }
}

/// An id as part of an address.
fn name(id: &str) -> Result<&str, Failure> {
    let fits = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if fits { Ok(id) } else { Err(Failure::bad_input(format!("{id:?} is no id of a job: it has letters and digits"))) }
}

/// A server that is asked.
struct Client {
    agent: ureq::Agent,
    address: String,
    token: Option<String>,
}

/// The largest answer that is taken: rows of the largest grids are below.
const LARGEST: u64 = 4 << 30;

impl Server {
    fn client(&self) -> Result<Client, Failure> {
        let variable = |name| std::env::var(name).ok().filter(|value: &String| !value.is_empty());
        let token = match &self.token_file {
            Some(path) => Some(io::read_text(path)?.trim().to_owned()),
            None => variable("RECTIFY_TOKEN"),
        };
        let agent = ureq::Agent::config_builder()
            .timeout_connect(Some(Duration::from_secs(10)))
            .timeout_recv_response(Some(Duration::from_secs(120)))
            .max_redirects(0)
            .http_status_as_error(false);
        Ok(Client { agent: agent.build().into(), address: self.server.trim_end_matches('/').to_owned(), token })
    }
}

type Answer = ureq::http::Response<ureq::Body>;

impl Client {
    fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        parsed(&self.text(path)?)
    }

    fn text(&self, path: &str) -> Result<String, Failure> {
        let request = self.signed(self.agent.get(self.at(path)));
        read(self.answered(request.call())?)
    }

    /// Writes an answer to a file, which has its name when it is whole.
    fn download(&self, path: &str, file: &Path) -> Result<(), Failure> {
        let answer = self.answered(self.signed(self.agent.get(self.at(path))).call())?;
        let length =
            answer.headers().get("content-length").and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        let (mut body, mut broke) = (answer.into_body().into_reader(), None);
        let written = io::write_with(file, |to| {
            let copied = std::io::copy(&mut body, to)?;
            if length.is_some_and(|length| copied != length) {
                broke = Some(Failure::new(Kind::Device, format!("the answer broke off after {copied} bytes")));
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            Ok(())
        });
        broke.map_or(written, Err)
    }

    fn post(&self, path: &str) -> Result<Job, Failure> {
        self.send(path, "", None)
    }

    fn send(&self, path: &str, body: &str, key: Option<&str>) -> Result<Job, Failure> {
        let mut request = self.signed(self.agent.post(self.at(path))).header("content-type", "application/json");
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        parsed(&read(self.answered(request.send(body))?)?)
    }

    fn delete(&self, path: &str) -> Result<(), Failure> {
        self.answered(self.signed(self.agent.delete(self.at(path))).call()).map(drop)
    }

    /// The lines of an answer that goes on.
    fn lines(&self, path: &str, seen: Option<&str>) -> Result<impl Iterator<Item = std::io::Result<String>>, Failure> {
        let mut request = self.signed(self.agent.get(self.at(path)));
        if let Some(seen) = seen {
            request = request.header("last-event-id", seen);
        }
        Ok(BufReader::new(self.answered(request.call())?.into_body().into_reader()).lines())
    }

    fn at(&self, path: &str) -> String {
        format!("{}/api/{path}", self.address)
    }

    fn signed<B>(&self, request: ureq::RequestBuilder<B>) -> ureq::RequestBuilder<B> {
        match &self.token {
            Some(token) => request.header("authorization", format!("Bearer {token}")),
            None => request,
        }
    }

    /// What the server answers, unless it refuses.
    fn answered(&self, answer: Result<Answer, ureq::Error>) -> Result<Answer, Failure> {
        let unreachable = |error| Failure::new(Kind::Device, format!("{} cannot be reached: {error}", self.address));
        let answer = answer.map_err(unreachable)?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let text = read(answer)?;
        let refused = || Failure::bad_input(format!("{} answered {status}: is it a Rectify server?", self.address));
        Err(serde_json::from_str(&text).unwrap_or_else(|_| refused()))
    }
}

fn read(mut answer: Answer) -> Result<String, Failure> {
    let text = answer.body_mut().with_config().limit(LARGEST).read_to_string();
    text.map_err(|error| Failure::new(Kind::Device, format!("the answer broke off: {error}")))
}

fn parsed<T: DeserializeOwned>(text: &str) -> Result<T, Failure> {
    serde_json::from_str(text)
        .map_err(|error| Failure::bad_input(format!("the server's answer is not in the expected form: {error}")))
}
