//! Games: commands of some clients, played on both servers in lockstep, until a reply differs; and
//! the search for the shortest game that still shows it.

use std::collections::HashSet;
use std::fmt;
use std::time::{Duration, Instant};

use sextant_engine::Next;

use crate::families::{FAMILIES, Line};
use crate::judge::{Rule, parts, same};
use crate::ours::{Ours, now};
use crate::peer::{Connection, Peer};
use crate::words::{Maker, Words};

/// Plays of a game at most.
const PLAYS_MAX: usize = 160;
/// Commands that are said at once at most.
const RUN_MAX: usize = 64;
/// Clients of a game at most.
const CLIENTS_MAX: usize = 3;
/// How long a shorter game is looked for.
const SHRINK_SECONDS: u64 = 20;

/// A command, and how its reply is compared.
#[derive(Clone, Debug)]
pub struct Said {
    /// As [`Engine::commands`](sextant_engine::Engine::commands) has it.
    pub name: String,
    /// Its words.
    pub words: Words,
    /// How its reply is compared.
    pub rule: Rule,
}

/// Commands of a client that belong together.
#[derive(Clone, Debug)]
pub struct Play {
    /// Who says them.
    pub client: usize,
    /// The commands.
    pub said: Vec<Said>,
    /// Milliseconds that pass behind them.
    pub pass_ms: u64,
}

/// What is played.
#[derive(Clone, Debug)]
pub struct Game {
    /// All of it follows from this.
    pub seed: u64,
    /// Clients. The last one looks at what is left at the end.
    pub clients: usize,
    /// The plays, in order.
    pub plays: Vec<Play>,
}

/// Two replies that are not the same.
#[derive(Clone, Debug)]
pub struct Mismatch {
    /// The command's name.
    pub name: String,
    /// What was played, up to there.
    pub game: Game,
    /// What the engine replied.
    pub ours: Vec<u8>,
    /// What redis-server replied; none if it did not.
    pub theirs: Option<Vec<u8>>,
}

impl Game {
    /// A game of these lines, but for commands that are left out.
    pub fn new(seed: u64, lines: &[Line], left_out: &HashSet<String>) -> Game {
        let mut maker = Maker::new(seed);
        let lines: Vec<&Line> =
            lines.iter().filter(|line| !left_out.contains(&line.name)).collect();
        let lines = some_families(&mut maker, &lines);
        let players = maker.random.usize(1..=CLIENTS_MAX);
        let mut plays = Vec::new();
        for client in 0..players {
            if maker.random.bool() {
                let said = said("hello", vec![b"hello".to_vec(), b"3".to_vec()], Rule::Hello);
                plays.push(Play { client, said: vec![said], pass_ms: 0 });
            }
        }
        let mut client = 0;
        for _ in 0..maker.random.usize(10..PLAYS_MAX) {
            if maker.random.u8(0..6) == 0 {
                client = maker.random.usize(..players);
            }
            let line = lines[maker.random.usize(..lines.len())];
            if !line.row.rare || maker.random.u8(0..10) == 0 {
                plays.push(play(&mut maker, line, client));
            }
        }
        let known: HashSet<String> = crate::families::known();
        plays.extend(sweep(&maker.keys, players, &known));
        Game { seed, clients: players + 1, plays }
    }

    fn with(&self, plays: Vec<Play>) -> Game {
        Game { seed: self.seed, clients: self.clients, plays }
    }

    /// Commands in it.
    pub fn commands(&self) -> usize {
        self.plays.iter().map(|play| play.said.len()).sum()
    }
}

/// The lines of the families that are part of every game, and of some others, so that commands
/// meet values that they can use.
fn some_families<'a>(maker: &mut Maker, lines: &[&'a Line]) -> Vec<&'a Line> {
    let others: Vec<_> = FAMILIES.iter().filter(|family| !family.always).collect();
    let always = maker.random.bool();
    let chosen: Vec<&str> = (0..maker.random.usize(1..=3))
        .map(|_| others[maker.random.usize(..others.len())].name)
        .chain(FAMILIES.iter().filter(|family| family.always && always).map(|family| family.name))
        .collect();
    let some: Vec<_> = lines.iter().copied().filter(|line| chosen.contains(&line.family)).collect();
    let some = if some.len() > 3 { some } else { lines.to_vec() };
    // What a client is told by its own transaction stands between the replies in 7.0, and behind
    // them in 7.2.
    match some.iter().any(|line| line.family == "pubsub") {
        true => some.into_iter().filter(|line| line.family != "transactions").collect(),
        false => some,
    }
}

fn said(name: &str, words: Words, rule: Rule) -> Said {
    Said { name: name.to_owned(), words, rule }
}

fn play(maker: &mut Maker, line: &Line, client: usize) -> Play {
    let mut made = line.template.make(maker).into_iter();
    let mut first = made.next().expect("a line has a command");
    maker.change_case(&mut first);
    // What belongs to others has made sure of something for them.
    if made.len() == 0 && maker.random.u8(0..25) == 0 {
        maker.spoil(&mut first);
    }
    let mut commands = vec![said(&line.name, first, line.row.rule)];
    commands.extend(made.map(|words| {
        let name = String::from_utf8_lossy(&words[0]).into_owned();
        said(&name, words, Rule::Exact)
    }));
    Play { client, said: commands, pass_ms: line.row.pass_ms }
}

/// A look at all that is left.
fn sweep(keys: &[Vec<u8>], client: usize, known: &HashSet<String>) -> Vec<Play> {
    const LOOKS: &[(&str, &[&str], Rule)] = &[
        ("type", &[], Rule::Exact),
        ("pexpiretime", &[], Rule::Near(3000)),
        ("get", &[], Rule::Exact),
        ("hgetall", &[], Rule::Pairs),
        ("smembers", &[], Rule::Unordered),
        ("lrange", &["0", "-1"], Rule::Exact),
        ("zrange", &["0", "-1", "withscores"], Rule::Floats),
        ("xrange", &["-", "+"], Rule::Exact),
    ];
    let mut plays = Vec::new();
    let mut say = |name: &str, rule: Rule, words: Words| {
        plays.push(Play { client, said: vec![said(name, words, rule)], pass_ms: 0 });
    };
    let words = |name: &str, key: &[u8], rest: &[&str]| {
        let mut words = vec![name.as_bytes().to_vec(), key.to_vec()];
        words.extend(rest.iter().map(|word| word.as_bytes().to_vec()));
        words
    };
    for db in ["1", "2", "0"] {
        say("select", Rule::Exact, words("select", db.as_bytes(), &[]));
        say("keys", Rule::Unordered, words("keys", b"*", &[]));
        for key in keys {
            for (name, rest, rule) in LOOKS.iter().filter(|(name, ..)| known.contains(*name)) {
                say(name, *rule, words(name, key, rest));
            }
        }
    }
    plays
}

/// Both servers.
pub struct Duel {
    peer: Peer,
    control: Connection,
}

/// A command that was said, and what the engine replied.
struct Replied<'a> {
    said: &'a Said,
    replies: Vec<Vec<u8>>,
    queued: Vec<(Words, Rule)>,
    /// The number of its play.
    at: usize,
}

/// A game that is being played.
struct Table<'d> {
    duel: &'d mut Duel,
    ours: Ours,
    theirs: Vec<Connection>,
    queued: Vec<Vec<(Words, Rule)>>,
}

impl Duel {
    /// Starts a redis-server.
    pub fn new() -> Duel {
        let peer = Peer::start();
        let control = peer.connect();
        Duel { peer, control }
    }

    /// Plays a game; returns the first difference.
    pub fn play(&mut self, game: &Game) -> Option<Mismatch> {
        self.control.settle();
        ["FLUSHALL", "SCRIPT FLUSH", "FUNCTION FLUSH"]
            .iter()
            .for_each(|line| drop(self.control.ask(line)));
        let theirs = (0..game.clients).map(|_| self.peer.connect()).collect();
        let (ours, queued) = (Ours::new(game.clients), vec![Vec::new(); game.clients]);
        let mut table = Table { duel: self, ours, theirs, queued };
        let mut at = 0;
        while at < game.plays.len() {
            if let Err(mismatch) = table.run(game, &mut at) {
                return Some(mismatch);
            }
        }
        table.replay(game).err()
    }

    /// The shortest game that was found to show a difference in the same command.
    pub fn shrink(&mut self, mismatch: Mismatch) -> Mismatch {
        let (mut best, begun) = (mismatch, Instant::now());
        let mut size = best.game.plays.len().div_ceil(2);
        let is_time_up = || begun.elapsed() > Duration::from_secs(SHRINK_SECONDS);
        while size > 0 && !is_time_up() {
            let (mut from, mut shorter) = (0, false);
            while from < best.game.plays.len() && !is_time_up() {
                let mut plays = best.game.plays.clone();
                plays.drain(from..(from + size).min(plays.len()));
                match self.play(&best.game.with(plays)) {
                    Some(found) if found.name == best.name => (best, shorter) = (found, true),
                    _ => from += size,
                }
            }
            if !shorter || size > 1 {
                size /= 2;
            }
        }
        best
    }
}

impl Default for Duel {
    fn default() -> Duel {
        Duel::new()
    }
}

impl Table<'_> {
    /// Plays what one client says, up to where another does, or something else has to be seen to.
    fn run(&mut self, game: &Game, at: &mut usize) -> Result<(), Mismatch> {
        let client = game.plays[*at].client;
        if self.ours.is_waiting(client) {
            *at += 1;
            return Ok(());
        }
        self.ours.catch_up();
        let (mut run, mut next, mut pass_ms) = (Vec::new(), Next::Ready, 0);
        while next == Next::Ready && pass_ms == 0 && run.len() < RUN_MAX {
            let Some(play) = game.plays.get(*at).filter(|play| play.client == client) else {
                break;
            };
            for said in &play.said {
                let (replies, then) = self.ours.say(client, &said.words);
                let queued = self.keep_queue(client, said, &replies);
                run.push(Replied { said, replies, queued, at: *at });
                next = then;
                if next != Next::Ready {
                    break;
                }
            }
            pass_ms = play.pass_ms;
            *at += 1;
        }
        self.theirs[client].say(run.iter().map(|replied| &replied.said.words));
        for replied in &run {
            self.compare(game, client, replied)?;
        }
        if next == Next::Close {
            self.ours.reconnect(client);
            self.theirs[client] = self.duel.peer.connect();
            self.queued[client].clear();
        }
        let last = run.last().expect("a run has a play, and a play has a command");
        if game.clients > 2 || next == Next::Waiting {
            self.compare_told(game, last)?;
        }
        if pass_ms > 0 {
            self.pass(pass_ms);
        }
        Ok(())
    }

    /// Keeps account of what a transaction has queued; returns it to the EXEC that does it.
    fn keep_queue(
        &mut self,
        client: usize,
        said: &Said,
        replies: &[Vec<u8>],
    ) -> Vec<(Words, Rule)> {
        let queue = &mut self.queued[client];
        match &*said.words[0].to_ascii_lowercase() {
            _ if replies.first().is_some_and(|reply| reply == b"+QUEUED\r\n") => {
                queue.push((said.words.clone(), said.rule));
            }
            b"exec" => return std::mem::take(queue),
            b"discard" | b"reset" => queue.clear(),
            _ => {}
        }
        Vec::new()
    }

    fn compare(
        &mut self,
        game: &Game,
        client: usize,
        replied: &Replied<'_>,
    ) -> Result<(), Mismatch> {
        let Replied { said, replies, queued, at } = replied;
        let heard = replies.iter().map(|_| self.theirs[client].hear());
        let (mut heard, mut replies) = (heard.collect::<Vec<_>>(), replies.clone());
        // What a client tells itself comes before the reply in 7.0, and behind it in 7.2; the
        // patterns that match come in any order.
        let is_push = |reply: &[u8]| reply.starts_with(b">");
        if replies.first().is_some_and(|reply| !is_push(reply)) {
            heard.sort_by_key(|reply| reply.clone().filter(|reply| is_push(reply)));
            replies.sort_by_key(|reply| Some(reply.clone()).filter(|reply| is_push(reply)));
        }
        for (ours, theirs) in replies.iter().zip(heard) {
            let is_same = |theirs: &[u8]| same(&said.words, said.rule, queued, ours, theirs);
            if !theirs.as_deref().is_some_and(is_same) {
                let name = theirs.as_deref().and_then(|theirs| culprit(queued, ours, theirs));
                let name = name.unwrap_or_else(|| said.name.clone());
                let game = game.with(game.plays[..=*at].to_vec());
                return Err(Mismatch { name, game, ours: ours.clone(), theirs });
            }
        }
        Ok(())
    }

    /// Compares what clients were told that had not asked just now.
    fn compare_told(&mut self, game: &Game, last: &Replied<'_>) -> Result<(), Mismatch> {
        self.duel.control.settle();
        for client in 0..game.clients {
            let (mut ours, mut theirs) = (self.ours.heard(client), self.theirs[client].rest());
            // What is long may still be on its way.
            while theirs.len() < ours.len() {
                let Some(more) = self.theirs[client].hear() else { break };
                theirs.push(more);
            }
            // The patterns that match come in any order.
            ours.sort();
            theirs.sort();
            let is_same = ours.len() == theirs.len()
                && ours
                    .iter()
                    .zip(&theirs)
                    .all(|(ours, theirs)| same(&vec![Vec::new()], Rule::Floats, &[], ours, theirs));
            if !is_same {
                let game = game.with(game.plays[..=last.at].to_vec());
                let (name, theirs) = (format!("{}, told", last.said.name), Some(theirs.concat()));
                return Err(Mismatch { name, game, ours: ours.concat(), theirs });
            }
        }
        Ok(())
    }

    /// Lets time pass, and what expires meanwhile be deleted by both.
    fn pass(&mut self, ms: u64) {
        let until = now() + ms;
        while now() < until {
            std::thread::sleep(Duration::from_millis(until.saturating_sub(now())));
        }
        for db in [15, 2, 1, 0] {
            self.duel.control.ask(&format!("SELECT {db}"));
            // KEYS would hide them, and leave them.
            self.duel.control.ask("SCAN 0 COUNT 100000");
        }
        self.ours.catch_up();
    }

    /// What the engine has noted for its log makes the same databases.
    fn replay(&mut self, game: &Game) -> Result<(), Mismatch> {
        let mut replayed = self.ours.replayed();
        let looker = game.clients - 1;
        for play in game.plays.iter().filter(|play| play.client == looker) {
            for said in &play.said {
                let (ours, _) = self.ours.say(looker, &said.words);
                let (again, _) = replayed.say(0, &said.words);
                let (ours, again) = (ours.concat(), again.concat());
                if !same(&said.words, said.rule, &[], &ours, &again) {
                    let name = format!("{}, after a start", said.name);
                    return Err(Mismatch { name, game: game.clone(), ours, theirs: Some(again) });
                }
            }
        }
        Ok(())
    }
}

/// The command of a transaction whose replies differ.
fn culprit(queued: &[(Words, Rule)], ours: &[u8], theirs: &[u8]) -> Option<String> {
    let (ours, theirs) = (parts(ours)?, parts(theirs)?);
    let mut each = queued.iter().zip(ours.iter().zip(&theirs));
    let (words, _) = each
        .find(|((words, rule), (ours, theirs))| !same(words, *rule, &[], ours, theirs))
        .map(|(queued, _)| queued)?;
    Some(String::from_utf8_lossy(&words[0]).to_lowercase())
}

/// Bytes for a person.
fn shown(bytes: &[u8]) -> String {
    const BYTES_MAX: usize = 400;
    let cut = &bytes[..bytes.len().min(BYTES_MAX)];
    let more = if bytes.len() > BYTES_MAX {
        format!("… ({} bytes)", bytes.len())
    } else {
        String::new()
    };
    format!("{}{more}", cut.escape_ascii())
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: SEXTANT_SEED={}", self.name, self.game.seed)?;
        for play in &self.game.plays {
            for said in &play.said {
                let words: Vec<String> = said.words.iter().map(|word| shown(word)).collect();
                writeln!(f, "  {}> \"{}\"", play.client, words.join("\" \""))?;
            }
            if play.pass_ms > 0 {
                writeln!(f, "  … {} ms", play.pass_ms)?;
            }
        }
        writeln!(f, "  ours   {}", shown(&self.ours))?;
        let theirs = self.theirs.as_deref().map_or_else(|| "nothing".to_owned(), shown);
        write!(f, "  theirs {theirs}")
    }
}
