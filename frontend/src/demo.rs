//! What an embedded demonstration is told by its address: a set-up, as in a link, and how to look.
//!
//! `embed.html?v=1&model=demo-gpt2&facts=[…]&scene=edit&theme=dark`. The page that holds it says nothing else: no message
//! is heard, so whatever it sends changes nothing. `frontend/embed` has the element that writes these addresses.

use rectify_protocol::{Failure, bounds, unknown};

use crate::link::{Fields, Setup};

/// Every key of a demonstration's address.
const KEYS: &[&str] = &[
    "model",
    "scene",
    "facts",
    "method",
    "regularizer",
    "keep",
    "theme",
    "lang",
    "height",
    "eager",
    "base",
    "seed",
    "settings.",
];
/// The heights, in CSS pixels, that can be asked for.
const HEIGHTS: std::ops::RangeInclusive<usize> = 100..=4_000;

/// A demonstration, as its address describes it.
#[derive(Clone, Debug, PartialEq)]
pub struct Demo {
    /// What it is about.
    pub setup: Setup,
    /// What is shown.
    pub scene: Scene,
    /// `light` or `dark`; absent for what the system prefers.
    pub theme: Option<&'static str>,
    /// It is at least so many pixels high.
    pub height: Option<usize>,
    /// Whether it begins as soon as it is seen, unasked.
    pub eager: bool,
}

/// What a demonstration shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scene {
    /// A fact before and after an edit.
    Edit,
    /// Abilities while edits accumulate.
    Abilities,
}

impl Demo {
    /// Reads an address after its `?`.
    ///
    /// # Errors
    ///
    /// When anything in it is unknown, malformed, impossible or too long.
    pub fn parse(query: &str) -> Result<Self, Failure> {
        let mut fields = Fields::parse(query)?;
        // Each of these stands for itself in the markup, where what is kept needs no more words than the share.
        if let Some(keep) = fields.take("keep") {
            fields.put_if_absent("regularizer", "rect");
            fields.put_if_absent("keep", &keep);
        }
        let demo = Self {
            setup: Setup::take(&mut fields)?,
            scene: choice(&mut fields, "scene", &[("edit", Scene::Edit), ("abilities", Scene::Abilities)])?,
            theme: choice(&mut fields, "theme", &[("auto", None), ("light", Some("light")), ("dark", Some("dark"))])?,
            height: fields.take("height").map(|text| height(&text)).transpose()?,
            eager: choice(&mut fields, "eager", &[("false", false), ("true", true)])?,
        };
        choice(&mut fields, "lang", &[("en", ())])?;
        fields.done(KEYS)?;
        if let Some(fact) = &demo.setup.fact {
            fact.validate()?;
        }
        Ok(demo)
    }
}

/// One of these words; the first where there is none.
fn choice<T: Copy>(fields: &mut Fields, key: &str, words: &[(&str, T)]) -> Result<T, Failure> {
    let Some(text) = fields.take(key) else { return Ok(words[0].1) };
    let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
    let found = words.iter().find(|(word, _)| *word == text);
    found.map(|(_, value)| *value).ok_or_else(|| Failure::bad_input(unknown(key, &text, &known)))
}

fn height(text: &str) -> Result<usize, Failure> {
    let pixels =
        text.parse().map_err(|_| Failure::bad_field("height", format_args!("is {text:?}, no whole number")))?;
    bounds::within("height", pixels, HEIGHTS)?;
    Ok(pixels)
}

#[cfg(test)]
mod tests {
    use rectify_protocol::Regularizer;

    use super::*;

    #[test]
    fn a_demonstration_without_wishes_is_an_edit() {
        let demo = Demo { setup: Setup::default(), scene: Scene::Edit, theme: None, height: None, eager: false };
        assert_eq!(Demo::parse("v=1"), Ok(demo));
    }

    #[test]
    fn every_wish_is_heard() {
        let demo = Demo::parse(
            "v=1&model=demo-nano&scene=abilities&method=memit&regularizer=random&keep=0.2&theme=dark&lang=en&height=500\
            &eager=true&facts=[{\"subject\":\"Ada\",\"prompt\":\"Ada+was+born+in\",\"target_new\":\"Rome\"}]",
        )
        .unwrap();
        assert_eq!(
            (demo.scene, demo.theme, demo.height, demo.eager),
            (Scene::Abilities, Some("dark"), Some(500), true)
        );
        assert_eq!(demo.setup.model.as_deref(), Some("demo-nano"));
        assert_eq!(demo.setup.method, Some("memit"));
        assert_eq!(demo.setup.regularizer, Some(Regularizer::Random { keep: 0.2 }));
        assert_eq!(demo.setup.fact.map(|fact| fact.prompt).as_deref(), Some("Ada was born in"));
        assert_eq!(Demo::parse("v=1&keep=0.2").unwrap().setup.regularizer, Some(Regularizer::Rect { keep: 0.2 }));
    }

    #[track_caller]
    fn check_refused(query: &str, complaint: &str) {
        let failure = Demo::parse(&format!("v=1&{query}")).expect_err("refused");
        assert!(failure.message.contains(complaint), "{failure}");
    }

    #[test]
    fn a_wish_that_cannot_be_met_is_named() {
        check_refused("scene=weights", "unknown scene \"weights\"");
        check_refused("theme=red", "unknown theme \"red\"");
        check_refused("lang=de", "unknown lang \"de\"; known: en");
        check_refused("height=tall", "height is \"tall\"");
        check_refused("height=99999999", "height is 99999999; a whole number from 100 to 4000");
        check_refused("eager=perhaps", "unknown eager \"perhaps\"");
        check_refused("keep=2", "keep is 2");
        check_refused("keep=0.2&regularizer=none", "keep has no meaning for none");
        check_refused("thme=dark", "did you mean \"theme\"?");
        check_refused("src=javascript:alert(1)", "unknown key");
        check_refused(r#"facts=[{"subject":"Ida","prompt":"Ada","target_new":"c"}]"#, "does not occur in the prompt");
    }
}
