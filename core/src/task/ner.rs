//! Named entity recognition: which persons, places, organizations and other names does a sentence mention?

use rectify_protocol::{Continuation, Judgement, Tally, Verdict};

use super::{Question, Questions, Task, question::tallies, records, score::shared};
use crate::{Error, Result};

/// CoNLL 2003, <https://aclanthology.org/W03-0419>; the paper uses the development set, `testa`. Each sentence is asked
/// for once per type of entity.
///
/// The paper calls its score entity-level F1. Released is the mean over types of the share of entities whose text
/// occurs in the reply, with spans read amiss. Strict is F1 over all entities of all types.
pub(super) const NER: Task = Task { id: "ner", name: "Named entity recognition (CoNLL 2003)", new_tokens: 10, read };

/// A type as tags have it, and as the prompt says it.
const TYPES: [(&str, &str); 4] =
    [("PER", "Person"), ("LOC", "Location"), ("ORG", "Organization"), ("MISC", "Miscellaneous")];

/// What a model may say for "no such entity"; the paper's prompt suggests nothing.
const NONE: &str = "none";

struct Sentence {
    tokens: Vec<Token>,
}

struct Token {
    word: String,
    /// The entity it belongs to, if any.
    entity: Option<Entity>,
}

struct Entity {
    /// One of [`TYPES`].
    kind: &'static str,
    /// Whether it begins here.
    begins: bool,
}

/// Columns: the word first, the tag last; a blank line after each sentence. Tags are BIO2, where every entity begins
/// with `B-`, or CoNLL's own IOB1, where that is so only between neighbors of one type.
fn read(file: &str, text: &str) -> Result<Questions> {
    let text = records::content(file, text)?;
    let wrong = |number: usize, problem: &str| Error::bad_file(file, format!("line {number}: {problem}"));
    let mut sentences: Questions = Vec::new();
    let mut tokens: Vec<Token> = Vec::new();
    for (number, line) in (1..).zip(text.lines().chain([""])) {
        let columns: Vec<&str> = line.split_whitespace().collect();
        match columns[..] {
            [] if tokens.is_empty() => {}
            [] => sentences.push(Box::new(Sentence { tokens: std::mem::take(&mut tokens) })),
            ["-DOCSTART-", ..] => {}
            [word, .., tag] => {
                let entity = entity(tag, tokens.last()).map_err(|problem| wrong(number, &problem))?;
                tokens.push(Token { word: word.to_owned(), entity });
            }
            [_] => {
                return Err(wrong(number, &format!("expected a word and a tag, separated by blanks, found {line:?}")));
            }
        }
    }
    if sentences.is_empty() {
        return Err(Error::bad_file(file, "there is no sentence in it"));
    }
    Ok(sentences)
}

/// What a tag says, given the token before: `I-` begins an entity unless that token belongs to one of the same type.
fn entity(tag: &str, before: Option<&Token>) -> std::result::Result<Option<Entity>, String> {
    if tag == "O" {
        return Ok(None);
    }
    let wrong = || format!("expected O, or B- or I- and PER, LOC, ORG or MISC, in the last column, found {tag:?}");
    let (prefix, name) = tag.split_once('-').filter(|(prefix, _)| matches!(*prefix, "B" | "I")).ok_or_else(wrong)?;
    let (kind, _) = TYPES.into_iter().find(|(kind, _)| *kind == name).ok_or_else(wrong)?;
    let goes_on = before.and_then(|token| token.entity.as_ref()).is_some_and(|entity| entity.kind == kind);
    Ok(Some(Entity { kind, begins: prefix == "B" || !goes_on }))
}

impl Question for Sentence {
    fn prompts(&self) -> Vec<String> {
        let sentence = self.text();
        let prompt = |(_, kind)| format!("Please identify {kind} Entity from the given text. Text: {sentence} Entity:");
        TYPES.map(prompt).into()
    }

    fn answers(&self) -> Vec<String> {
        let answer = |(kind, _)| {
            let entities = self.entities(kind);
            if entities.is_empty() { format!(" {NONE}") } else { format!(" {}", entities.join(", ")) }
        };
        TYPES.map(answer).into()
    }

    /// Paper: see [`Sentence::released`]. Strict: what the reply names, divided at commas and line ends, against the
    /// entities; `2·matches of named + expected` adds up to the F1 over all sentences and types.
    fn judge(&self, replies: &[Continuation]) -> Judgement {
        assert_eq!(replies.len(), TYPES.len(), "the caller promises a reply to each prompt");
        let (mut paper, mut strict) = (Verdict::default(), Tally::default());
        for ((kind, _), reply) in TYPES.into_iter().zip(replies) {
            paper.parts.insert(kind.to_owned(), self.released(kind, reply));
            let named: Vec<&str> = names(&reply.text).filter(|name| !name.eq_ignore_ascii_case(NONE)).collect();
            let expected = self.entities(kind);
            let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
            strict.0 += 2.0 * shared(&named, &expected) as f64;
            strict.1 += (named.len() + expected.len()) as f64;
        }
        paper.unparsed = replies.iter().filter(|reply| names(&reply.text).next().is_none()).count();
        let unparsed = paper.unparsed;
        Judgement { paper, strict: Verdict { parts: tallies([("F1", strict)]), unparsed }, ..Judgement::default() }
    }
}

impl Sentence {
    /// Words with a space between them, but none before a comma or period.
    fn text(&self) -> String {
        let mut text = String::new();
        for Token { word, .. } in &self.tokens {
            if !text.is_empty() && word != "," && word != "." {
                text.push(' ');
            }
            text.push_str(word);
        }
        text
    }

    /// The entities of one type.
    fn entities(&self, kind: &str) -> Vec<String> {
        let mut entities: Vec<String> = Vec::new();
        for token in &self.tokens {
            match &token.entity {
                Some(entity) if entity.kind != kind => {}
                Some(Entity { begins: true, .. }) => entities.push(token.word.clone()),
                Some(_) => {
                    let entity = entities.last_mut().expect("an entity begins before it goes on");
                    entity.push(' ');
                    entity.push_str(&token.word);
                }
                None => {}
            }
        }
        entities
    }

    /// The released recall of one type: how many of its spans occur in the reply, of how many.
    ///
    /// Of a sentence without such a span the reply is right if it is empty, which a decoded end-of-text mark never is;
    /// otherwise it does not count, except that Miscellaneous counts it as wrong.
    fn released(&self, kind: &str, reply: &Continuation) -> Tally {
        let spans = self.released_spans(kind);
        let hits = spans.iter().filter(|span| reply.text.contains(span.as_str())).count();
        match (spans.len(), reply.text.is_empty() && !reply.ended) {
            (0, true) => Tally(1.0, 1.0),
            (0, false) => Tally(0.0, if kind == "MISC" { 1.0 } else { 0.0 }),
            (n, _) => Tally(hits as f64, n as f64),
        }
    }

    /// What the release takes for the entities of one type: from where one begins up to the next token outside of any.
    ///
    /// So neighbors are glued together, whatever their type. If no token outside follows, the sentence's last token is
    /// lost, and of an entity that is that token the empty text remains, which every reply contains: a model that
    /// says nothing of use still scores 0.0091 on `testa`.
    fn released_spans(&self, kind: &str) -> Vec<String> {
        let mut spans = Vec::new();
        let mut rest = &self.tokens[..];
        let belongs = |token: &Token| token.entity.as_ref().is_some_and(|entity| entity.kind == kind);
        while let Some(start) = rest.iter().position(belongs) {
            let tail = &rest[start..];
            let end = tail.iter().position(|token| token.entity.is_none()).unwrap_or(tail.len() - 1);
            spans.push(tail[..end].iter().map(|token| token.word.as_str()).collect::<Vec<_>>().join(" "));
            rest = &tail[end + 1..];
        }
        spans
    }
}

/// The names in a reply.
fn names(reply: &str) -> impl Iterator<Item = &str> {
    reply.split([',', '\n']).map(str::trim).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::tests::{complaint, prompts};

    /// Tokens `word/TAG` of one sentence, and what both readings find of one type.
    #[track_caller]
    fn check(sentence: &str, kind: &str, released: &[&str], entities: &[&str]) {
        let mut tokens: Vec<Token> = Vec::new();
        for token in sentence.split(' ') {
            let (word, tag) = token.split_once('/').unwrap();
            let entity = entity(tag, tokens.last()).unwrap();
            tokens.push(Token { word: word.into(), entity });
        }
        let sentence = Sentence { tokens };
        assert_eq!(sentence.released_spans(kind), released, "released");
        assert_eq!(sentence.entities(kind), entities, "entities");
    }

    #[test]
    fn an_entity_between_words_is_read_alike() {
        check("in/O New/B-LOC York/I-LOC ./O", "LOC", &["New York"], &["New York"]);
        check("Ada/B-PER met/O Ida/B-PER ./O", "PER", &["Ada", "Ida"], &["Ada", "Ida"]);
        check("Ada/B-PER left/O", "LOC", &[], &[]);
    }

    #[test]
    fn neighbors_are_glued_as_released() {
        check("Ada/B-PER Rome/B-LOC ./O", "PER", &["Ada Rome"], &["Ada"]);
        check("Ada/B-PER Rome/B-LOC ./O", "LOC", &["Rome"], &["Rome"]);
        check("Ada/B-PER Ida/B-PER ./O", "PER", &["Ada Ida"], &["Ada", "Ida"]);
    }

    #[test]
    fn the_last_token_of_a_sentence_is_lost_as_released() {
        check("in/O New/B-LOC York/I-LOC", "LOC", &["New"], &["New York"]);
        check("in/O Rome/B-LOC", "LOC", &[""], &["Rome"]);
        check("Rome/B-LOC", "LOC", &[""], &["Rome"]);
        check("Ada/B-PER Rome/B-LOC", "PER", &["Ada"], &["Ada"]);
        check("Ada/B-PER Rome/B-LOC", "LOC", &[""], &["Rome"]);
    }

    #[test]
    fn the_tags_of_conll_itself_begin_entities_too() {
        check("in/O New/I-LOC York/I-LOC ./O", "LOC", &["New York"], &["New York"]);
        check("Ada/I-PER Rome/I-LOC ./O", "LOC", &["Rome"], &["Rome"]);
        check("Ada/I-PER Ida/B-PER ./O", "PER", &["Ada Ida"], &["Ada", "Ida"]);
    }

    #[test]
    fn there_are_four_prompts_without_a_space_before_commas_and_periods() {
        let file = "-DOCSTART- -X- -X- O\n\nAda _ _ B-PER\n, _ _ O\nof _ _ O\nRome _ _ B-LOC\n. _ _ O\n";
        let expected = ["Person", "Location", "Organization", "Miscellaneous"]
            .map(|kind| format!("Please identify {kind} Entity from the given text. Text: Ada, of Rome. Entity:"));
        assert_eq!(prompts("ner", file), expected);
    }

    #[test]
    fn a_tag_that_is_none_is_named() {
        let tag = complaint("ner", "Ada NNP B-PER\nleft VBD\n");
        assert_eq!(
            tag,
            "f: line 2: expected O, or B- or I- and PER, LOC, ORG or MISC, in the last column, found \"VBD\""
        );
        assert_eq!(
            complaint("ner", "Ada\n"),
            "f: line 1: expected a word and a tag, separated by blanks, found \"Ada\""
        );
        assert!(complaint("ner", "Ada B-NAME\n").contains("found \"B-NAME\""));
        assert!(complaint("ner", "Ada E-PER\n").contains("found \"E-PER\""));
        assert_eq!(complaint("ner", "-DOCSTART- -X- O O\n\n"), "f: there is no sentence in it");
    }
}
