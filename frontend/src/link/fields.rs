//! The `key=value` pairs of an address, read strictly: each key once, none unknown, nothing malformed, nothing too long.

use rectify_protocol::{Failure, unknown};

/// Bytes that the pairs of one address may have: what browsers, mail programs and servers' logs can be trusted with.
pub const LONGEST: usize = 16_384;
/// What every address says first. Another meaning of a key is another version.
const VERSION: &str = "1";

/// Pairs that nobody has taken yet.
#[derive(Debug)]
pub struct Fields(Vec<(String, String)>);

impl Fields {
    /// The pairs of `v=1&key=value&…`, percent-encoded as forms are: `+` is a space.
    ///
    /// # Errors
    ///
    /// When the text is longer than [`LONGEST`], a pair has no `=`, a key comes twice, an escape is none, what is
    /// escaped is no UTF-8, or the version is another or not there.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        if text.len() > LONGEST {
            let problem = format!("the address has {} bytes after its page's name; there may be {LONGEST}", text.len());
            return Err(Failure::bad_input(problem));
        }
        let mut pairs: Vec<(String, String)> = Vec::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let Some((key, value)) = pair.split_once('=') else {
                return Err(Failure::bad_input(format!("{pair:?} in the address is no KEY=VALUE")));
            };
            let (key, value) = (unescape(key)?, unescape(value)?);
            if pairs.iter().any(|(known, _)| *known == key) {
                return Err(Failure::bad_field(&key, "is there twice; once is enough"));
            }
            pairs.push((key, value));
        }
        let mut fields = Self(pairs);
        match fields.take("v").as_deref() {
            Some(VERSION) => Ok(fields),
            Some(other) => {
                Err(Failure::bad_field("v", format_args!("is {other:?}; this page reads version {VERSION}")))
            }
            None => Err(Failure::bad_field("v", format_args!("is missing; addresses begin with v={VERSION}"))),
        }
    }

    /// Takes the value of `key`, if it is there.
    pub fn take(&mut self, key: &str) -> Option<String> {
        let at = self.0.iter().position(|(known, _)| known == key)?;
        Some(self.0.remove(at).1)
    }

    /// Adds a pair, unless its key is there.
    pub fn put_if_absent(&mut self, key: &str, value: &str) {
        if !self.0.iter().any(|(known, _)| known == key) {
            self.0.push((key.to_owned(), value.to_owned()));
        }
    }

    /// Takes every pair whose key begins with `start`, without it.
    pub fn take_all(&mut self, start: &str) -> Vec<(String, String)> {
        let (taken, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.0).into_iter().partition(|(key, _)| key.starts_with(start));
        self.0 = rest;
        taken.into_iter().map(|(key, value)| (key[start.len()..].to_owned(), value)).collect()
    }

    /// Complains about a pair that nobody took.
    ///
    /// # Errors
    ///
    /// When there is one.
    pub fn done(self, known: &[&str]) -> Result<(), Failure> {
        match self.0.first() {
            None => Ok(()),
            Some((key, _)) => Err(Failure::bad_input(unknown("key in the address:", key, known))),
        }
    }
}

/// What [`Fields::parse`] reads.
pub fn write(pairs: &[(String, String)]) -> String {
    let mut text = format!("v={VERSION}");
    for (key, value) in pairs {
        text.push('&');
        escape(key, &mut text);
        text.push('=');
        escape(value, &mut text);
    }
    text
}

fn escape(text: &str, to: &mut String) {
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => to.push(char::from(byte)),
            b' ' => to.push('+'),
            _ => to.push_str(&format!("%{byte:02X}")),
        }
    }
}

fn unescape(text: &str) -> Result<String, Failure> {
    let wrong = |what: &str| Failure::bad_input(format!("{what} in the address, in {}", short(text)));
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16));
                match (digit(), digit()) {
                    (Some(high), Some(low)) => (high * 16 + low) as u8,
                    _ => return Err(wrong("a % without two hexadecimal digits")),
                }
            }
            other => other,
        });
    }
    String::from_utf8(bytes).map_err(|_| wrong("bytes that are no UTF-8"))
}

/// The beginning of a text that may be long, quoted.
fn short(text: &str) -> String {
    match text.char_indices().nth(40) {
        None => format!("{text:?}"),
        Some((at, _)) => format!("\"{}…\"", text[..at].escape_debug()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_refused(text: &str, complaint: &str) {
        let failure = Fields::parse(text).and_then(|fields| fields.done(&["model", "keep"])).expect_err("refused");
        assert!(failure.message.contains(complaint), "{failure}");
    }

    #[test]
    fn what_is_wrong_with_an_address_is_named() {
        check_refused("", "v is missing");
        check_refused("model=a", "v is missing");
        check_refused("v=2", "v is \"2\"; this page reads version 1");
        check_refused("v=1&model", "\"model\" in the address is no KEY=VALUE");
        check_refused("v=1&v=1", "v is there twice");
        check_refused("v=1&m%6fdel=a&model=b", "model is there twice");
        check_refused("v=1&modal=a", "unknown key in the address: \"modal\"; did you mean \"model\"?");
        check_refused("v=1&model=100%", "a % without two hexadecimal digits");
        check_refused("v=1&model=%2", "a % without two hexadecimal digits");
        check_refused("v=1&model=%+1", "a % without two hexadecimal digits");
        check_refused("v=1&model=%FF", "no UTF-8");
        check_refused(&format!("v=1&model={}", "%FF".repeat(500)), "%FF%…\"");
        check_refused(&format!("v=1&model={}", "a".repeat(LONGEST)), "there may be 16384");
    }

    #[test]
    fn a_text_comes_back_whatever_it_is_made_of() {
        for text in
            ["", " ", "+", "%", "%41", "a=b&c", "#?/\\", "“quoted” 'and' \"so\"", "two\nlines\r\t\0", "🙂 𝔘 é e\u{301}"]
        {
            let pairs = [("model".to_owned(), text.to_owned())];
            let mut fields = Fields::parse(&write(&pairs)).expect("what was written is read");
            assert_eq!(fields.take("model").as_deref(), Some(text));
        }
    }
}
