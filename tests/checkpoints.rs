//! Walks the table of docs/checkpoints.md: every option is read or refused as it says.

use std::{fs, path::Path};

use burn::tensor::Device;
use rectify_core::model::{Description, Loader};
use serde_json::Value;

const TOKENIZER: &[u8] = include_bytes!("golden/families/tokenizer.json");

/// `config.json` of a small checkpoint of each family, with one key set: read, or the refusal.
fn read(family: &str, key: &str, value: Value) -> Result<(), String> {
    let path = format!("{}/golden/families/{family}/config.json", env!("CARGO_MANIFEST_DIR"));
    let text = fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let mut config: Value = serde_json::from_slice(&text).expect("JSON");
    config[key] = value;
    let config = config.to_string();
    let loader = Loader::new(&Description::new(config.as_bytes(), TOKENIZER), &Device::flex());
    loader.map(drop).map_err(|error| error.to_string())
}

#[test]
fn every_option_is_computed_or_refused_as_the_documents_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/checkpoints.md");
    let text = fs::read_to_string(path).expect("docs/checkpoints.md");
    let mut rows = 0;
    for line in text.lines().filter(|line| line.contains("| `")) {
        let [_, family, key, value, what, _] = line.split('|').map(str::trim).collect::<Vec<_>>()[..] else {
            panic!("{line}: a row has four cells")
        };
        let (key, value) = (key.trim_matches('`'), value.trim_matches('`'));
        let value = serde_json::from_str(value).unwrap_or_else(|error| panic!("{line}: {error}"));
        match (what, read(family, key, value)) {
            ("computed" | "changes nothing", found) => found.unwrap_or_else(|error| panic!("{line}\n{error}")),
            ("refused", Err(message)) => {
                assert!(message.contains(key), "{line}\nis refused without its name: {message}");
            }
            ("refused", Ok(())) => panic!("{line}\nis read"),
            (other, _) => panic!("{line}: {other:?} is none of the words"),
        }
        rows += 1;
    }
    assert!(rows > 45, "{rows} rows");
}
