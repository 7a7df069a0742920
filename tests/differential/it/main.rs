//! The engine and redis-server reply the same.

#![allow(clippy::unwrap_used)]

use std::collections::HashSet;
use std::time::{Duration, Instant};

use sextant_differential::duel::{Duel, Game, Mismatch};
use sextant_differential::families::{EXEMPT, FAMILIES, SETTLED, known, lines, unsaid};
use sextant_differential::judge::DIFFERENCES;
use sextant_differential::template::Template;
use sextant_differential::words::Maker;

/// How long is played by default.
const SECONDS: u64 = 20;
/// Differences that are shown at most.
const SHOWN_MAX: usize = 30;

fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

#[test]
fn replies_are_those_of_redis_server() {
    let seconds = setting("SEXTANT_DIFF_SECONDS").map_or(SECONDS, |text| text.parse().unwrap());
    let seed = setting("SEXTANT_SEED").map(|text| text.parse().unwrap());
    let first: u64 = seed.unwrap_or(1);
    let only = setting("SEXTANT_DIFF_ONLY");
    let only = |family: &str| match only.as_deref() {
        None => SETTLED.contains(&family),
        Some("all") => true,
        Some(only) => only.split(',').any(|one| one == family),
    };
    let lines: Vec<_> = lines().into_iter().filter(|line| only(line.family)).collect();
    println!("games from SEXTANT_SEED={first} on");
    let (mut duel, begun) = (Duel::new(), Instant::now());
    let (mut found, mut left_out): (Vec<Mismatch>, HashSet<String>) = Default::default();
    let (mut games, mut commands) = (0, 0);
    while begun.elapsed() < Duration::from_secs(seconds) && found.len() < SHOWN_MAX {
        let game = Game::new(first + games, &lines, &left_out);
        (games, commands) = (games + 1, commands + game.commands());
        if let Some(mismatch) = duel.play(&game) {
            let mismatch = duel.shrink(mismatch);
            println!("{mismatch}\n");
            // What is known to differ would hide the rest.
            let said = mismatch.game.plays.last().map(|play| play.said[0].name.clone());
            left_out.extend(said.into_iter().chain([mismatch.name.clone()]));
            found.push(mismatch);
        }
    }
    println!("{games} games, {commands} commands, {} differences", found.len());
    assert!(
        found.is_empty(),
        "replies differ: {:?}",
        found.iter().map(|one| &one.name).collect::<Vec<_>>()
    );
}

#[test]
fn every_command_of_the_engine_is_said_or_has_a_reason_not_to_be() {
    assert_eq!(unsaid(), Vec::<String>::new());
    assert!(EXEMPT.iter().all(|(_, reason)| !reason.is_empty()));
    assert!(DIFFERENCES.iter().all(|difference| !difference.reason.is_empty()));
}

#[test]
fn every_line_makes_commands() {
    let mut maker = Maker::new(1);
    for row in FAMILIES.iter().flat_map(|family| family.rows) {
        let template = Template::parse(row.line);
        for _ in 0..50 {
            let made = template.make(&mut maker);
            assert!(made.iter().all(|words| !words.is_empty()), "{}", row.line);
        }
    }
    assert!(lines().len() > known().len() / 2);
}

#[test]
fn a_game_follows_from_its_seed() {
    let lines = lines();
    let game = |seed| format!("{:?}", Game::new(seed, &lines, &HashSet::new()).plays);
    assert_eq!(game(5), game(5));
    assert_ne!(game(5), game(6));
}
