//! A static host: the files of a folder under some path, and nothing of ours.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    thread,
};

/// Serves until the tests end, for nothing waits for it.
pub struct Host {
    /// `http://127.0.0.1:PORT/some/path/`
    pub address: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Host {
    /// Serves `folder` under `path`, which begins and ends with a slash.
    pub fn serve(folder: &Path, path: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = format!("http://{}{path}", listener.local_addr().expect("an address"));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let folder = folder.to_owned();
        thread::spawn({
            let asked = Arc::clone(&asked);
            move || {
                for stream in listener.incoming().map_while(Result::ok) {
                    let (folder, asked) = (folder.clone(), Arc::clone(&asked));
                    // A browser that goes away while it is answered is no matter.
                    thread::spawn(move || answer(stream, &folder, path, &asked));
                }
            }
        });
        Self { address, asked }
    }

    /// The paths that were asked for so far, below the host's own.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("nobody panicked with it").clone()
    }
}

fn answer(mut stream: TcpStream, folder: &Path, path: &str, asked: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    for line in lines {
        if line?.is_empty() {
            break;
        }
    }
    let wanted = request.split(' ').nth(1).unwrap_or_default().split('?').next().unwrap_or_default();
    let Some(file) = wanted.strip_prefix(path).filter(|file| !file.contains("..")) else {
        return stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    };
    asked.lock().expect("nobody panicked with it").push(file.to_owned());
    let file: PathBuf = folder.join(if file.is_empty() { "index.html" } else { file });
    let Ok(body) = fs::read(&file) else {
        return stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    };
    let kind = match file.extension().and_then(|end| end.to_str()) {
        Some("html") => "text/html",
        Some("css") => "text/css",
        Some("js") => "text/javascript",
        Some("json") => "application/json",
        Some("wasm") => "application/wasm",
        _ => "application/octet-stream",
    };
    let length = body.len();
    let head =
        format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    if !request.starts_with("HEAD") {
        stream.write_all(&body)?;
    }
    Ok(())
}
