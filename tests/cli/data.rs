//! `rectify data`.

use std::{fs, process::Command};

use crate::desk::{check_said, rectify};

/// A hub that has these files, by their path, and says 404 to everything else; `Err` is another status.
fn hub(files: &[(&str, Result<&str, u16>)]) -> String {
    use std::io::{BufRead, BufReader, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    let files: Vec<(String, Result<String, u16>)> =
        files.iter().map(|(path, file)| ((*path).to_owned(), file.map(str::to_owned))).collect();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a visitor");
            let asked: Vec<String> = BufReader::new(stream.try_clone().expect("two ends"))
                .lines()
                .map_while(|line| line.ok().filter(|line| !line.is_empty()))
                .collect();
            let path = asked.first().and_then(|line| line.split(' ').nth(1)).unwrap_or_default();
            let found = files.iter().find(|(name, _)| path == name).map_or(&Err(404), |(_, file)| file);
            let reply = match found {
                Err(status) => format!("HTTP/1.1 {status} No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"),
                Ok(text) => {
                    let length = text.len();
                    format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{text}")
                }
            };
            stream.write_all(reply.as_bytes()).expect("the visitor waits");
        }
    });
    address
}

/// `data fetch` from this hub into a folder of its own, with a cache of its own: exit code, stdout, stderr, files.
fn fetch(hub: &str, args: &[&str]) -> (Option<i32>, String, String, Vec<String>) {
    let here = tempfile::tempdir().expect("a folder");
    let out = here.path().join("data");
    let output = Command::new(env!("CARGO_BIN_EXE_rectify"))
        .args(["data", "fetch"])
        .args(args)
        .arg("--out")
        .arg(&out)
        .env("HF_ENDPOINT", hub)
        .env("HF_HOME", here.path().join("cache"))
        .output()
        .expect("the program starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace(&out.display().to_string(), "OUT");
    let files = fs::read_dir(&out).into_iter().flatten();
    let files = files.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
    (output.status.code(), text(&output.stdout), text(&output.stderr), files.collect())
}

const SAMSUM: &str = "/datasets/knkarthick/samsum/resolve/main/validation.csv";
const SST2: &str = "/datasets/SetFit/sst2/resolve/main/dev.jsonl";
const CHATS: &str = "id,dialogue,summary\n1,\"A: Coming?\nB: I am ill.\",B is ill.\n2,A: Hi,A greets.\n";

#[test]
fn data_sets_are_listed_with_their_licences() {
    for args in [["data", "list"], ["data", "fetch"]] {
        let output = rectify(&args);
        assert_eq!(output.status.code(), Some(0));
        let list = String::from_utf8_lossy(&output.stdout).into_owned();
        check_said(&list, &["gsm8k", "licence  MIT", "conll2003", "research only", "samsum", "non-commercial"]);
        check_said(&list, &["licence  unstated", "CC BY-SA 3.0", "https://", "counterfact.json", "nq_open_test.jsonl"]);
    }
}

#[test]
fn without_consent_licences_are_shown_and_nothing_is_fetched() {
    let hub = hub(&[(SAMSUM, Ok(CHATS))]);
    let (code, stdout, stderr, files) = fetch(&hub, &["samsum"]);
    assert_eq!((code, stdout.as_str(), files.len()), (Some(2), "", 0));
    check_said(&stderr, &["CC BY-NC-ND 4.0", "knkarthick/samsum", "nothing was fetched", "--accept-licences"]);
    let (code, _, stderr, files) = fetch(&hub, &["samsun", "--accept-licences"]);
    assert_eq!((code, files.len()), (Some(2), 0));
    check_said(&stderr, &["unknown data set \"samsun\"; did you mean \"samsum\"?"]);
}

#[test]
fn a_data_set_is_fetched_from_the_hub_under_its_name_and_the_others_still_are_when_one_is_not() {
    let hub = hub(&[(SAMSUM, Ok(CHATS)), (SST2, Err(401))]);
    let (code, stdout, stderr, files) = fetch(&hub, &["samsum", "--accept-licences"]);
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(stdout, "OUT/samsum_validation.csv  2 records\n");
    assert_eq!(files, ["samsum_validation.csv"]);
    check_said(&stderr, &["CC BY-NC-ND 4.0"]);

    let (code, stdout, stderr, files) = fetch(&hub, &["sst2", "samsum", "--yes"]);
    assert_eq!(code, Some(1), "{stderr}");
    assert_eq!(
        (stdout.as_str(), files),
        ("OUT/samsum_validation.csv  2 records\n", vec!["samsum_validation.csv".into()])
    );
    check_said(&stderr, &["HTTP 401", "OUT/sst2_dev.jsonl", "1 of 2", "not fetched: sst2"]);
}

#[test]
fn without_a_network_it_is_said_what_to_place_where() {
    // Nothing listens on the port for discarding.
    let (code, stdout, stderr, files) = fetch("http://127.0.0.1:9", &["sst2", "--accept-licences"]);
    assert_eq!((code, stdout.as_str(), files.len()), (Some(1), "", 0), "{stderr}");
    check_said(
        &stderr,
        &["cannot be reached", "by hand", "https://huggingface.co/datasets/SetFit/sst2", "OUT/sst2_dev.jsonl"],
    );
    check_said(&stderr, &["licence  unstated", "format   JSON Lines with text and label", "1 of 1"]);
    let (_, _, stderr, _) = fetch(&hub(&[]), &["sst2", "--accept-licences"]);
    check_said(&stderr, &["HTTP 404", "OUT/sst2_dev.jsonl"]);
}

#[test]
fn what_cannot_be_read_or_is_another_file_is_not_kept() {
    let hub = hub(&[
        (SAMSUM, Ok("id,chat,summary\n1,A: Hi,A greets.\n")),
        (SST2, Ok("{\"text\": \"good\", \"label\": 1}\n")),
    ]);
    let (code, stdout, stderr, files) = fetch(&hub, &["samsum", "sst2", "--accept-licences"]);
    assert_eq!((code, stdout.as_str(), files.len()), (Some(1), "", 0), "{stderr}");
    check_said(
        &stderr,
        &["line 2: field \"dialogue\"", "there are chat, id, summary", "not the file that was expected"],
    );
}
