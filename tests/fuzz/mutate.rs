//! What becomes of a file between a program that wrote it and one that reads it: bits, bytes and values change.

use serde_json::{Map, Value};

/// One change: which, where, and to what, taken modulo what there is.
pub type Change = (u8, u32, u32);

/// How a kind of file is put together, so that a change can go deeper than its first check.
#[derive(Clone, Copy)]
pub enum Format {
    /// Any text.
    Text,
    /// One JSON document.
    Json,
    /// A JSON document on each line.
    JsonLines,
    /// Eight bytes with the length of a JSON header, the header, numbers.
    Safetensors,
}

/// Half of the changes go to the bytes as they lie there, half to a value of the document.
pub fn mutate(format: Format, bytes: &[u8], changes: &[Change]) -> Vec<u8> {
    changes.iter().fold(bytes.to_vec(), |bytes, change| {
        if change.0.is_multiple_of(2) {
            return in_bytes(&bytes, *change);
        }
        match format {
            Format::Text => in_bytes(&bytes, *change),
            Format::Json => in_json(&bytes, *change),
            Format::JsonLines => in_line(&bytes, *change),
            Format::Safetensors => in_header(&bytes, *change),
        }
    })
}

/// Texts that have hurt readers of numbers, of strings and of JSON.
const HOSTILE: &[&str] = &[
    "1e999",
    "-1",
    "18446744073709551615",
    "9223372036854775808",
    "NaN",
    "null",
    "\"\\ud800\"",
    "\u{feff}",
    "\u{0}",
    "{\"",
    "[[[[[[[[[[[[[[[[[[[[",
    "}]",
    ",,",
    "\\u0000",
    "😀",
];

fn in_bytes(bytes: &[u8], (kind, at, what): Change) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    if bytes.is_empty() {
        return HOSTILE[what as usize % HOSTILE.len()].into();
    }
    let at = at as usize % bytes.len();
    let to = (at + 1 + what as usize % 64).min(bytes.len());
    match kind / 2 % 6 {
        0 => bytes[at] ^= 1 << (what % 8),
        1 => bytes[at] = what as u8,
        2 => bytes.truncate(at),
        3 => drop(bytes.drain(at..to)),
        4 => {
            let again = bytes[at..to].to_vec();
            bytes.splice(at..at, again);
        }
        _ => drop(bytes.splice(at..at, HOSTILE[what as usize % HOSTILE.len()].bytes())),
    }
    bytes
}

fn in_json(bytes: &[u8], change: Change) -> Vec<u8> {
    let Ok(mut document) = serde_json::from_slice::<Value>(bytes) else { return in_bytes(bytes, change) };
    let (kind, at, what) = change;
    let mut place = at as usize % nodes(&document);
    in_value(&mut document, &mut place, kind, what);
    document.to_string().into_bytes()
}

fn in_line(bytes: &[u8], change: Change) -> Vec<u8> {
    let mut lines: Vec<Vec<u8>> = bytes.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    let line = change.2 as usize % lines.len();
    lines[line] = in_json(&lines[line], change);
    lines.join(&b'\n')
}

fn in_header(bytes: &[u8], change: Change) -> Vec<u8> {
    let Some((length, rest)) = bytes.split_first_chunk() else { return in_bytes(bytes, change) };
    let length = usize::try_from(u64::from_le_bytes(*length)).unwrap_or(usize::MAX).min(rest.len());
    let (header, numbers) = rest.split_at(length);
    let header = in_json(header, change);
    // Now and then the length stays the old one.
    let said = if change.2.is_multiple_of(13) { length } else { header.len() };
    [&(said as u64).to_le_bytes(), header.as_slice(), numbers].concat()
}

fn nodes(value: &Value) -> usize {
    1 + match value {
        Value::Array(list) => list.iter().map(nodes).sum(),
        Value::Object(map) => map.values().map(nodes).sum(),
        _ => 0,
    }
}

/// Changes the node whose turn it is when `place` has counted down, in the order of writing.
fn in_value(value: &mut Value, place: &mut usize, kind: u8, what: u32) -> bool {
    if *place == 0 {
        *value = changed(value, kind, what);
        return true;
    }
    *place -= 1;
    match value {
        Value::Array(list) => list.iter_mut().any(|inner| in_value(inner, place, kind, what)),
        Value::Object(map) => map.values_mut().any(|inner| in_value(inner, place, kind, what)),
        _ => false,
    }
}

fn changed(value: &Value, kind: u8, what: u32) -> Value {
    let numbers = [0.0, -1.0, 1e-300, 1e300, 1e15, 4_294_967_296.0, 0.5];
    match (kind / 2 % 8, value) {
        (0, Value::Object(map)) => {
            let skipped = what as usize % map.len().max(1);
            Value::Object(map.clone().into_iter().enumerate().filter(|(i, _)| *i != skipped).map(|(_, e)| e).collect())
        }
        (0, Value::Array(list)) => Value::Array(list.iter().skip(1).cloned().collect()),
        (1, Value::Object(map)) => {
            let mut map = map.clone();
            map.insert(HOSTILE[what as usize % HOSTILE.len()].to_owned(), Value::from(what));
            Value::Object(map)
        }
        (1, Value::Array(list)) => Value::Array(list.iter().chain(list).cloned().collect()),
        (0 | 1, Value::Number(number)) => Value::from(number.as_f64().unwrap_or(0.0) + f64::from(what % 3) - 1.0),
        (0 | 1, Value::String(text)) => Value::from(text.repeat(2)),
        (2, _) => Value::from(numbers[what as usize % numbers.len()]),
        (3, _) => Value::from([0, 1, u64::MAX, u64::MAX / 2, 1 << 40, 1 << 31, 1 << 20][what as usize % 7]),
        (4, _) => Value::from(HOSTILE[what as usize % HOSTILE.len()]),
        (5, _) => Value::Null,
        (6, _) => (0..what % 150).fold(value.clone(), |inner, _| Value::Array(vec![inner])),
        (_, _) if what.is_multiple_of(2) => Value::Object(Map::new()),
        _ => Value::Array(Vec::new()),
    }
}
