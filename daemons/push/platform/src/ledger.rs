//! The thread that the platform lives on, and the way to it.
//!
//! ```text
//!   HTTP handlers ── ask, change ──►┐            ┌── answers, once durable
//!   cores ── told ─────────────────►│ one queue  ▼
//!                                   └──► take some ──► commit ──► run ──► orders to cores
//! ```
//!
//! What is taken together is committed together: many changes share one write and sync.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use sextant_audit::Reader;
use tokio::sync::oneshot;

use crate::engine::{Engine, Generations, Keys};
use crate::id::Ids;
use crate::refusal::Refusal;
use crate::told::{Cores, Told};

/// Requests that wait for the thread, before more are refused.
const REQUESTS_MAX: usize = 4096;
/// What cores have told and was not taken in, before they are asked to wait.
const TOLD_MAX: usize = 1 << 20;
/// How long the thread takes in what comes before it commits.
const TAKE_MAX: Duration = Duration::from_millis(20);
/// How long orders wait that found a core's queue full, in milliseconds.
const FULL_MS: u64 = 1;
/// How long it sleeps at most.
const SLEEP_MAX: Duration = Duration::from_millis(250);

/// What is answered once a commit has ended, and how that was.
type Answer = Box<dyn FnOnce(Result<(), Refusal>) + Send>;
type Work = Box<dyn FnOnce(&mut Engine, u64) -> Option<Answer> + Send>;

enum Job {
    Do(Work),
    Told(u16, Vec<Told>),
    Stop,
}

/// How the platform stands, for `/metrics`: as it was at the end of its thread's last round.
#[derive(Debug, Default)]
pub struct Gauges([AtomicU64; 6]);

impl Gauges {
    /// What there is to see: a name, what it is, and whether it only ever grows.
    pub const ALL: [(&str, &str, bool); 6] = [
        ("devices", "Registered devices.", false),
        ("devices_online", "Registered devices that are connected and take messages.", false),
        ("messages_open", "Messages of the platform that are not over.", false),
        ("messages_held", "Messages of the platform that wait for a reviewer.", false),
        ("facts", "Facts that the audit was told.", true),
        (
            "failed",
            "1 if the platform takes nothing until the next start, since its disk refused.",
            false,
        ),
    ];

    /// One of them, by its place among [`Gauges::ALL`].
    pub fn read(&self, at: usize) -> u64 {
        self.0.get(at).map_or(0, |gauge| gauge.load(Ordering::Relaxed))
    }

    fn show(&self, levels: [u64; 6]) {
        for (gauge, level) in self.0.iter().zip(levels) {
            gauge.store(level, Ordering::Relaxed);
        }
    }
}

#[derive(Default)]
struct Waiting {
    requests: AtomicUsize,
    told: AtomicUsize,
}

/// The way to the platform, from any thread.
#[derive(Clone)]
pub struct Handle {
    jobs: Sender<Job>,
    waiting: Arc<Waiting>,
    keys: Keys,
    generations: Generations,
    reader: Reader,
    ids: Ids,
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle").finish_non_exhaustive()
    }
}

impl Handle {
    /// Asks something of the platform.
    ///
    /// # Errors
    /// Too much waits for it, or it has ended.
    pub async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Engine, u64) -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.send(Box::new(move |engine, now| {
            // Whoever asked may have gone; so below.
            let _ = reply.send(question(engine, now));
            None
        }))?;
        answer.await.map_err(|_| ended())
    }

    /// Changes something; the answer comes once that is durable.
    ///
    /// # Errors
    /// The platform refuses it, too much waits for it, or it has ended.
    pub async fn change<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Engine, u64) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.send(Box::new(move |engine, now| match change(engine, now) {
            Ok(done) => Some(Box::new(move |committed: Result<(), Refusal>| {
                let _ = reply.send(committed.map(|()| done));
            })),
            Err(refusal) => {
                let _ = reply.send(Err(refusal));
                None
            }
        }))?;
        answer.await.map_err(|_| ended())?
    }

    fn send(&self, work: Work) -> Result<(), Refusal> {
        if self.waiting.requests.fetch_add(1, Ordering::AcqRel) >= REQUESTS_MAX {
            self.waiting.requests.fetch_sub(1, Ordering::AcqRel);
            return Err(Refusal::Unavailable("too many requests wait for it".to_owned()));
        }
        self.jobs.send(Job::Do(work)).map_err(|_| ended())
    }

    /// Tells the platform what happened on a core. Never waits.
    pub fn tell(&self, core: u16, told: Vec<Told>) {
        self.waiting.told.fetch_add(told.len(), Ordering::AcqRel);
        // It ends after the cores, or the daemon has failed.
        let _ = self.jobs.send(Job::Told(core, told));
    }

    /// Whether cores are to wait before they tell more.
    pub fn is_behind(&self) -> bool {
        self.waiting.told.load(Ordering::Acquire) > TOLD_MAX
    }

    /// Whose keys are whose.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// The least generations of devices' tokens.
    pub fn generations(&self) -> &Generations {
        &self.generations
    }

    /// Asks the audit without the platform's thread.
    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    /// The names of messages.
    pub fn ids(&self) -> &Ids {
        &self.ids
    }

    /// Has the platform end, once it has taken in what came before.
    pub fn stop(&self) {
        // It may have ended.
        let _ = self.jobs.send(Job::Stop);
    }
}

fn ended() -> Refusal {
    Refusal::Unavailable("it has ended".to_owned())
}

/// Gives an engine a thread, which shows how it stands in `gauges`. `clock` says milliseconds since 1970.
///
/// # Errors
/// The system has no thread.
pub fn spawn(
    engine: Engine,
    cores: impl Cores + Send + 'static,
    gauges: Arc<Gauges>,
    clock: fn() -> u64,
) -> std::io::Result<(Handle, JoinHandle<Result<(), Refusal>>)> {
    let (jobs, inbox) = mpsc::channel();
    let waiting = Arc::new(Waiting::default());
    let handle = Handle {
        jobs,
        waiting: Arc::clone(&waiting),
        keys: engine.keys(),
        generations: engine.generations(),
        reader: engine.reader().clone(),
        ids: engine.ids().clone(),
    };
    gauges.show(engine.levels());
    let ledger = Ledger { engine, cores, inbox, waiting, gauges, clock, answers: Vec::new() };
    let thread = std::thread::Builder::new().name("ledger".to_owned()).spawn(|| ledger.run())?;
    Ok((handle, thread))
}

struct Ledger<C> {
    engine: Engine,
    cores: C,
    inbox: Receiver<Job>,
    waiting: Arc<Waiting>,
    gauges: Arc<Gauges>,
    clock: fn() -> u64,
    answers: Vec<Answer>,
}

impl<C: Cores> Ledger<C> {
    fn run(mut self) -> Result<(), Refusal> {
        let mut next = Some(0);
        loop {
            let wait = next.map_or(SLEEP_MAX, |at: u64| {
                Duration::from_millis(at.saturating_sub((self.clock)())).min(SLEEP_MAX)
            });
            match self.inbox.recv_timeout(wait) {
                Ok(Job::Stop) | Err(RecvTimeoutError::Disconnected) => return self.end(),
                Ok(job) => {
                    self.take(job);
                    if !self.take_more() {
                        return self.end();
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
            self.commit();
            next = self.engine.run(&mut self.cores, (self.clock)());
            // Messages that begin together with others wait for the next.
            self.commit();
            self.gauges.show(self.engine.levels());
            if !self.cores.flush() {
                let soon = (self.clock)() + FULL_MS;
                next = Some(next.map_or(soon, |at| at.min(soon)));
            }
        }
    }

    /// Takes in what has come, for a moment; `false` if the platform is to end.
    fn take_more(&mut self) -> bool {
        let begin = Instant::now();
        while begin.elapsed() < TAKE_MAX {
            match self.inbox.try_recv() {
                Ok(Job::Stop) => return false,
                Ok(job) => self.take(job),
                Err(_) => return true,
            }
        }
        true
    }

    fn take(&mut self, job: Job) {
        let now = (self.clock)();
        match job {
            Job::Do(work) => {
                self.waiting.requests.fetch_sub(1, Ordering::AcqRel);
                self.answers.extend(work(&mut self.engine, now));
            }
            Job::Told(core, told) => {
                self.waiting.told.fetch_sub(told.len(), Ordering::AcqRel);
                self.engine.tell(core, told, now);
            }
            Job::Stop => {}
        }
    }

    fn commit(&mut self) {
        if !self.engine.needs_commit() && self.answers.is_empty() {
            return;
        }
        let committed = self.engine.commit(&mut self.cores, (self.clock)());
        for answer in self.answers.drain(..) {
            answer(committed.clone());
        }
    }

    fn end(mut self) -> Result<(), Refusal> {
        self.commit();
        self.engine.close()
    }
}
