//! The tests that every driver of a network card must pass, this crate's and anybody's.
//!
//! One line in a file of `tests/` makes a `#[test]` of each claim ([`CLAIMS`]):
//!
//! ```
//! use pinwire::open::Drivers;
//! pinwire::conformance!(Drivers::default(), "qtest:e1000");
//! ```
//!
//! with your own driver among the [`Drivers`](crate::open::Drivers), and QEMU's model of its card. `cargo test` then runs them over qtest. With
//! `PINWIRE_DEVICE=0000:00:03.0` and `PINWIRE_WIRE=eth1` in its environment the same program runs them over VFIO:
//! on that function, whose cable leads to that interface of the kernel's. So they run in a VM, and on a
//! machine with two cards. Fakes of yours ([`Card`]) join by [`Cards::with`].
//!
//! What a card cannot do it says: by [`Nic::offloads`], by [`Error::NotOffered`] when it is started or asked, by a
//! [`Link`](crate::nic::Link) without a speed. A claim that needs it is left out then, which is told on the standard
//! error, past the test runner's capture: `LEFT OUT: CLAIM on CARD: WHY`. That such a card refuses is a claim of
//! its own.

mod cards;
mod claims;
mod frames;
mod wire;

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;

pub use cards::{Card, Cards};
pub use claims::CLAIMS;
pub use wire::{PacketSocket, Wire};

use crate::error::{Error, Result};
use crate::nic::{Mac, Nic, NicConfig};

/// The address that frames of the tests are sent from by the card.
pub const OUR_MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);
/// The address that frames come to the card from.
pub const THEIR_MAC: Mac = Mac([2, 0, 0, 0, 0, 2]);

/// The reason for which a claim does not concern a card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut(pub String);

/// Outcome of a claim that a card does not break: one that does panics.
pub type Outcome = std::result::Result<(), LeftOut>;

/// A claim about drivers: its name, and what checks it on a card.
pub type Claim = (&'static str, fn(&dyn Card) -> Outcome);

fn left_out<T>(why: impl Into<String>) -> std::result::Result<T, LeftOut> {
    Err(LeftOut(why.into()))
}

/// Checks the claim `name` on each of `cards`; those that it does not concern are told.
///
/// # Panics
/// If a card breaks the claim, or there is none of that name.
pub fn check(cards: &Cards, name: &str) {
    let claim = CLAIMS.iter().find(|(claim, _)| *claim == name);
    let (_, check) = claim.unwrap_or_else(|| panic!("there is no claim {name}"));
    let mut told: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for card in cards.all() {
        println!("--- {}", card.name());
        if let Err(why) = card.is_at_hand() {
            not_run(name, &why);
            continue;
        }
        let outcome = check(card);
        match &outcome {
            Err(LeftOut(why)) if !card.is_fake() => {
                told.entry(why.clone()).or_default().push(card.name());
            }
            // What a fake does not do is its author's to know.
            Err(LeftOut(why)) => println!("left out: {why}"),
            Ok(()) => {}
        }
        note(card, name, &outcome);
    }
    for (why, cards) in told {
        let cards = cards.join(" and ");
        past_the_capture(&format!("LEFT OUT: {name} on {cards}: {why}"));
    }
}

/// Starts `card`, and gives it and its wire to `body`. What it refuses at the start it cannot do.
///
/// # Panics
/// If it does not start.
fn on(
    card: &dyn Card,
    config: NicConfig,
    body: impl FnOnce(&mut dyn Nic, &dyn Wire) -> Outcome,
) -> Outcome {
    match card.start(&config) {
        Ok((mut nic, wire)) => body(&mut *nic, &*wire),
        Err(Error::NotOffered { what, .. }) => left_out(format!("it cannot do this: {what}")),
        Err(error) => panic!("{} does not start: {error}", card.name()),
    }
}

/// The same but on a fake, where the work would be the test's own.
fn on_real(
    card: &dyn Card,
    config: NicConfig,
    body: impl FnOnce(&mut dyn Nic, &dyn Wire) -> Outcome,
) -> Outcome {
    match card.is_fake() {
        true => left_out("a fake does no work on frames, and reads no page cache"),
        false => on(card, config, body),
    }
}

/// The settings that every card starts with.
fn config() -> NicConfig {
    NicConfig::default()
}

/// Checks the result of a request: an error that says that the card cannot do it is the reason to leave a claim out.
///
/// # Panics
/// At any other error.
fn asked<T>(answer: Result<T>) -> std::result::Result<T, LeftOut> {
    match answer {
        Ok(value) => Ok(value),
        Err(Error::NotOffered { what, .. }) => left_out(format!("it cannot do this: {what}")),
        Err(error) => panic!("{error}"),
    }
}

/// Tells people something that a test runner would keep to itself.
fn past_the_capture(line: &str) {
    // Unlike `eprintln!`, this is not captured.
    let _ = writeln!(std::io::stderr(), "\n{line}");
}

/// Says loudly that a claim was not checked, and why.
///
/// # Panics
/// With `PINWIRE_REQUIRE_ALL=1`.
fn not_run(name: &str, why: &str) {
    let line = format!("NOT RUN: {name}: {why}");
    let required = std::env::var_os("PINWIRE_REQUIRE_ALL").is_some_and(|value| value == "1");
    assert!(!required, "{line}");
    past_the_capture(&line);
}

/// Notes what was checked in the file that `PINWIRE_TABLE` names: claim, card and how it was reached, with tabs in
/// between; and why it was left out, where it was.
fn note(card: &dyn Card, name: &str, outcome: &Outcome) {
    let Some(table) = std::env::var_os("PINWIRE_TABLE") else {
        return;
    };
    let (reach, model) = card.name().split_once(':').unwrap_or(("", card.name()));
    let mut line = format!("{name}\t{model}\t{reach}");
    if let Err(LeftOut(why)) = outcome {
        line += &format!("\tleft out: {}", why.replace(['\t', '\n'], " "));
    }
    let file = OpenOptions::new().create(true).append(true).open(table);
    let written = file.and_then(|mut file| writeln!(file, "{line}"));
    written.expect("PINWIRE_TABLE can be written");
}
