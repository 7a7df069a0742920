//! `sextant up`: the daemons as children of one process.
//!
//! ```text
//!   find the programs ─► ask each for its settings (--print-config) ─► are its ports free?
//!        ─► one keeper each ─► all ready ─► what to try next ─► Ctrl-C ─► stop in reverse order
//!        ─► the console, before them and until they have stopped
//! ```
//!
//! A keeper ([`keep`]) starts its daemon, prefixes its lines, sees it become ready and starts it
//! again when it dies. Children are started through [`exec`] by the main thread, so that the
//! kernel tells them to stop when this process is gone, however it went. They have process groups
//! of their own: Ctrl-C reaches this process alone, which then stops them in order.

mod keep;
mod lines;
mod program;

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use rustix::process::{Pid, Signal as Number};
use sextant_service::process::DataDir;
use sextant_service::runtime;
use sextant_service::signals::{Signal, Signals};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::cli::{ExecArgs, UpArgs};
use crate::console::{self, Backend, Console};
use crate::error::Error;
use crate::place::{Place, Running, Up};
use crate::terminal::{Colour, painted, say};

use keep::{Keeper, News};
use program::Program;

/// News that wait to be told; keepers wait for room.
const NEWS_MAX: usize = 64;

pub(crate) fn run(place: &Place, args: &UpArgs) -> Result<(), Error> {
    let data = DataDir::open(&place.data)?;
    let programs = program::find(data.path(), args)?;
    let console = Console::open(args.console)?;
    let supervised = supervise(data.path(), programs, console, !args.no_hints);
    runtime::run(supervised).map_err(Error::io("start"))?
}

/// Becomes the program that `args` name, which gets SIGTERM when its parent is gone.
///
/// This is a step of its own, between fork and exec, because the setting is of the calling process
/// and survives exec: the same process id, and no unsafe code.
pub(crate) fn exec(args: &ExecArgs) -> Result<(), Error> {
    rustix::process::set_parent_process_death_signal(Some(Number::TERM))
        .map_err(|error| Error::io("follow the parent process")(error.into()))?;
    if rustix::process::getppid() != Pid::from_raw(args.parent) {
        return Err(Error::Outcome("`sextant up` is gone already".to_owned()));
    }
    let Some((program, rest)) = args.program.split_first() else {
        return Err(Error::Usage("no program is named".to_owned()));
    };
    let error = Command::new(program).args(rest).exec();
    Err(Error::io(format!("run {}", Path::new(program).display()))(error))
}

/// A daemon that is kept running.
struct Kept {
    program: Program,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
    pid: Option<u32>,
    state: Seen,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    Starting,
    Ready,
    GivenUp,
}

async fn supervise(
    data: &Path,
    programs: Vec<Program>,
    console: Option<Console>,
    hints: bool,
) -> Result<(), Error> {
    let mut signals = Signals::new().map_err(Error::io("listen for signals"))?;
    let serving = console.as_ref().map(|console| console.serve(backends(data, &programs)));
    let serving = serving.transpose()?;
    let (sender, mut news) = mpsc::channel(NEWS_MAX);
    let mut daemons: Vec<Kept> = programs
        .into_iter()
        .enumerate()
        .map(|(index, program)| {
            let (stop, stopped) = watch::channel(false);
            let keeper = Keeper::new(index, program.clone(), stopped, sender.clone());
            let task = tokio::spawn(keeper.run());
            Kept { program, stop, task, pid: None, state: Seen::Starting }
        })
        .collect();
    drop(sender);
    let mut greeted = false;
    let result = loop {
        tokio::select! {
            Some((index, what)) = news.recv() => {
                note(&mut daemons[index], what);
                write_up(data, &daemons, console.as_ref())?;
            }
            signal = signals.next() => match signal {
                Signal::Shutdown => break Ok(()),
                _ => reload(&daemons),
            },
        }
        if daemons.iter().all(|daemon| daemon.state == Seen::GivenUp) {
            break Err(Error::Usage("no daemon can run: mend what is said above".to_owned()));
        }
        if !greeted && daemons.iter().all(|daemon| daemon.state != Seen::Starting) {
            greeted = true;
            if hints {
                greet(data, &daemons);
            }
            if let Some(console) = &console {
                invite(console)?;
            }
        }
    };
    stop(daemons, &mut news).await;
    if let Some(serving) = serving {
        serving.stop().await;
    }
    Up::remove(data);
    result
}

fn note(daemon: &mut Kept, what: News) {
    match what {
        News::Started(pid) => daemon.pid = Some(pid),
        News::Ready => daemon.state = Seen::Ready,
        News::Down => daemon.pid = None,
        News::GivenUp => {
            daemon.pid = None;
            daemon.state = Seen::GivenUp;
        }
    }
}

/// What stands behind the console.
fn backends(data: &Path, programs: &[Program]) -> Vec<Backend> {
    let backend = |program: &Program| Backend {
        name: program.name,
        admin: program.admin,
        data: data.join(program.name),
    };
    programs.iter().map(backend).collect()
}

fn write_up(data: &Path, daemons: &[Kept], console: Option<&Console>) -> Result<(), Error> {
    let running = |daemon: &Kept| Running {
        name: daemon.program.name.to_owned(),
        pid: daemon.pid,
        url: daemon.program.url.clone(),
        mqtt: daemon.program.mqtt.clone(),
    };
    Up {
        pid: std::process::id(),
        daemons: daemons.iter().map(running).collect(),
        console: console.map(Console::url),
    }
    .write(data)
}

/// Hands SIGHUP on.
fn reload(daemons: &[Kept]) {
    for pid in daemons.iter().filter_map(|daemon| daemon.pid) {
        keep::signal(pid, Number::HUP);
    }
}

/// Stops the daemons, the last started first, each before the next.
async fn stop(daemons: Vec<Kept>, news: &mut mpsc::Receiver<(usize, News)>) {
    // Nobody listens to news any more; a keeper must not wait for that.
    news.close();
    for daemon in daemons.into_iter().rev() {
        let _ = daemon.stop.send(true);
        let _ = daemon.task.await;
    }
    say("All daemons have stopped.");
}

/// Where everything is, and what to try.
fn greet(data: &Path, daemons: &[Kept]) {
    let me = std::env::args().next().unwrap_or_else(|| "sextant".to_owned());
    let option = if data == Path::new("./data") {
        String::new()
    } else {
        format!(" --data {}", data.display())
    };
    for Kept { program, .. } in daemons.iter().filter(|daemon| daemon.state == Seen::Ready) {
        say("");
        say(painted(Colour::Green, format_args!("{} serves", program.name)));
        for addr in &program.mqtt {
            say(format_args!("  MQTT     {addr}"));
        }
        say(format_args!("  API      {}", program.url));
        say(format_args!("  metrics  {}/metrics", program.url));
        say(format_args!("  token    {}", program.token_path(data).display()));
    }
    say("");
    say("Try this in another terminal:");
    say(format_args!("  {me}{option} push watch 'd/#'"));
    say(format_args!("  {me}{option} push send --device lamp --payload hello"));
    say(format_args!("  {me}{option} status"));
    say("Ctrl-C stops everything.");
    say("");
}

/// Where the console is.
fn invite(console: &Console) -> Result<(), Error> {
    say(painted(Colour::Green, "the console serves"));
    say(format_args!("  open     {}", console.link()?));
    say("           once, within an hour; after that log in with a daemon's admin token");
    if !console::are_built() {
        say("           its pages were not built: it says how");
    }
    say("");
    Ok(())
}
