//! `rectify serve`, as a process.

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

#[test]
fn a_client_with_half_a_request_does_not_keep_the_server_from_ending() {
    for signal in ["-INT", "-TERM"] {
        let statics = concat!(env!("CARGO_MANIFEST_DIR"), "/../static");
        let jobs = tempfile::tempdir().expect("a folder");
        let mut server = Command::new(env!("CARGO_BIN_EXE_rectify"))
            .args([
                "serve",
                "--static",
                statics,
                "--listen",
                "127.0.0.1:0",
                "--jobs",
                &jobs.path().display().to_string(),
            ])
            .stderr(Stdio::piped())
            .spawn()
            .expect("starts");
        let mut line = String::new();
        BufReader::new(server.stderr.take().expect("piped")).read_line(&mut line).expect("says where it listens");
        let address = line.trim().rsplit("http://").next().expect("an address");
        let mut client = TcpStream::connect(address).expect("connects");
        client.write_all(b"GET / HTTP/1.1\r\nHost: localh").expect("half a request");
        std::thread::sleep(Duration::from_millis(300));
        let killed = Command::new("kill").args([signal, &server.id().to_string()]).status().expect("kill");
        assert!(killed.success());
        let asked = Instant::now();
        while server.try_wait().expect("waits").is_none() {
            assert!(asked.elapsed() < Duration::from_secs(15), "{signal}: the server still runs");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}
