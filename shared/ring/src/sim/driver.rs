//! A core's way into a [`World`]: the simulated [`Driver`], and [`SimFiles`] for what works on
//! files without a core.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use super::World;
use super::state::{Direction, Of, Ready, SocketKind};
use crate::caps::Caps;
use crate::driver::{
    Completion, Driver, FileDone, FileOp, Files, Group, Kind, Op, Outcome, RxBuf, Socket, Token,
};
use crate::mesh::Remote;

/// A simulated ring: carries out operations in a [`World`]. When it is dropped, its connections
/// are reset, as those of a process that dies.
pub struct SimDriver {
    world: World,
    core: usize,
    remote: Remote,
    caps: Caps,
    queue: Vec<(Token, Op)>,
    queue_max: usize,
    /// What the buffers of each pool hold.
    buffers: [Vec<Vec<u8>>; 3],
    in_flight: usize,
}

impl SimDriver {
    pub(super) fn new(world: World, remote: Remote) -> SimDriver {
        let mut state = world.lock();
        let core = state.add_core(remote.clone());
        let plan = &state.plan;
        let caps = Caps {
            driver: "sim",
            sockets_max: plan.sockets_max,
            process_descriptors: false,
            incremental_buffers: false,
            deferred_work: true,
            parking: true,
            peer_addr: true,
        };
        let buffers = [plan.small, plan.bulk, plan.datagrams]
            .map(|(count, _)| vec![Vec::new(); count.into()]);
        let queue_max = plan.submissions_max;
        assert!(queue_max > 0, "a driver takes operations");
        drop(state);
        let queue = Vec::new();
        SimDriver { world, core, remote, caps, queue, queue_max, buffers, in_flight: 0 }
    }

    /// The core's number in its world.
    pub(super) fn core(&self) -> usize {
        self.core
    }

    pub(super) fn is_in(&self, world: &World) -> bool {
        self.world.is(world)
    }
}

impl Driver for SimDriver {
    fn caps(&self) -> &Caps {
        &self.caps
    }

    fn submit(&mut self, token: Token, op: Op) -> Result<(), Op> {
        assert!(token.0 >> 60 == 0, "the highest bits of a token are the driver's");
        assert!(names(token.kind(), &op), "{:?} is no token for {op:?}", token.kind());
        if self.queue.len() == self.queue_max {
            return Err(op);
        }
        self.in_flight += 1;
        self.queue.push((token, op));
        Ok(())
    }

    fn enter(&mut self, wait: Option<Duration>) -> io::Result<()> {
        let mut state = self.world.lock();
        if !state.cores[self.core].alive {
            return Err(io::Error::other("this core died in a simulated crash"));
        }
        if state.cores[self.core].take_overflown() {
            for (token, op) in self.queue.drain(..) {
                state.start(self.core, token, op);
            }
        }
        let range = state.plan.turn_delay.clone();
        let mut busy_until = state.now + state.delay(&range).max(1);
        let stall = state.plan.stall;
        if state.chance(stall) {
            let range = state.plan.stall_time.clone();
            busy_until += state.delay(&range);
        }
        let now = state.now;
        let mut wake_at =
            wait.map(|wait| now.saturating_add(u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX)));
        let early = state.plan.wake_early;
        if state.chance(early) {
            let at = state.after_local();
            wake_at = Some(wake_at.map_or(at, |later| later.min(at)));
        }
        let core = &mut state.cores[self.core];
        core.busy_until = busy_until;
        core.wake_at = wake_at;
        Ok(())
    }

    fn completed(&mut self) -> Option<Completion> {
        let mut state = self.world.lock();
        let Ready { completion, loan, of } = state.cores[self.core].ready.pop_front()?;
        if let Some((group, id, bytes)) = loan {
            self.buffers[group as usize][usize::from(id)] = bytes;
        }
        if !completion.more {
            self.in_flight -= 1;
            if let Some(of) = of {
                state.looked_at(self.core, of);
            }
        }
        Some(completion)
    }

    fn received(&self, buf: &RxBuf) -> &[u8] {
        &self.buffers[buf.group as usize][usize::from(buf.id)]
    }

    fn release(&mut self, buf: RxBuf) {
        let mut state = self.world.lock();
        if !state.cores[self.core].alive {
            return;
        }
        self.buffers[buf.group as usize][usize::from(buf.id)] = Vec::new();
        let pool = state.cores[self.core].pool(buf.group);
        let lent = std::mem::take(&mut pool.lent[usize::from(buf.id)]);
        assert!(lent, "a buffer is released once");
        pool.free.push(buf.id);
    }

    fn remote(&self) -> Remote {
        self.remote.clone()
    }

    fn bind_udp(&mut self, addr: SocketAddr) -> io::Result<(Socket, SocketAddr)> {
        let mut state = self.world.lock();
        let core = self.core;
        let Some(socket) = state.cores[core].open_socket(SocketKind::Datagram(addr)) else {
            return Err(io::Error::from_raw_os_error(libc::ENFILE));
        };
        match state.net.bind_datagram(addr, Some((core, socket))) {
            Ok(addr) => {
                let entry = state.cores[core].socket(socket).expect("it was just made");
                entry.kind = SocketKind::Datagram(addr);
                Ok((socket, addr))
            }
            Err(error) => {
                state.cores[core].free_socket(socket);
                Err(error)
            }
        }
    }

    fn in_flight(&self) -> usize {
        self.in_flight
    }
}

/// Whether an operation of that kind is this one.
fn names(kind: Kind, op: &Op) -> bool {
    match op {
        Op::Accept { .. } => kind == Kind::Accept,
        Op::Connect { .. } => kind == Kind::Connect,
        Op::Recv { .. } => kind == Kind::Recv,
        Op::Poll { .. } => kind == Kind::Poll,
        Op::Send { .. } => kind == Kind::Send,
        Op::RecvFrom { .. } => kind == Kind::RecvFrom,
        Op::SendTo { .. } => kind == Kind::SendTo,
        Op::PeerAddr { .. } => kind == Kind::Peer,
        Op::Cancel { .. } => matches!(kind, Kind::Cancel | Kind::Refuse),
        Op::Shutdown { .. } => kind == Kind::Shutdown,
        Op::HandOver { .. } => kind == Kind::HandOver,
        Op::Close { .. } => matches!(kind, Kind::Close | Kind::Refuse),
        Op::File(_) => kind == Kind::File,
    }
}

impl Drop for SimDriver {
    fn drop(&mut self) {
        self.world.lock().kill(self.core);
    }
}

impl fmt::Debug for SimDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimDriver({})", self.core)
    }
}

/// Works on a world's files without a core: a stand-in for [`Cx`](crate::core::Cx) in tests of
/// what only needs [`Files`].
pub struct SimFiles {
    driver: SimDriver,
    /// The caller's tickets, by the number under which an operation was submitted.
    tickets: BTreeMap<u64, u64>,
    last: u64,
}

impl SimFiles {
    pub(super) fn new(mut driver: SimDriver) -> SimFiles {
        driver.queue_max = usize::MAX;
        SimFiles { driver, tickets: BTreeMap::new(), last: 0 }
    }

    /// The next operation that has ended by now.
    pub fn done(&mut self) -> Option<FileDone> {
        let completion = self.driver.completed().or_else(|| {
            // Those that found no room come with an enter.
            self.driver.enter(None).ok()?;
            self.driver.completed()
        })?;
        let ticket =
            self.tickets.remove(&completion.token.number()).expect("an operation ends once");
        match completion.outcome {
            Outcome::File(result, buf) => Some(FileDone { ticket, result, buf }),
            outcome => panic!("a file operation cannot end in {outcome:?}"),
        }
    }

    /// Passes time until an operation has ended; `None` when none is under way.
    pub fn wait(&mut self) -> Option<FileDone> {
        loop {
            if let Some(done) = self.done() {
                return Some(done);
            }
            if self.tickets.is_empty() || !self.driver.world.lock().pass() {
                return None;
            }
        }
    }

    /// Operations under way.
    pub fn in_flight(&self) -> usize {
        self.tickets.len()
    }
}

impl Files for SimFiles {
    fn submit(&mut self, ticket: u64, op: FileOp) {
        self.last += 1;
        self.tickets.insert(self.last, ticket);
        let submitted = self.driver.submit(Token::new(Kind::File, self.last), Op::File(op));
        assert!(submitted.is_ok(), "each operation is handed over at once");
        // After a crash nothing comes of it, and nobody hears of it.
        let _ = self.driver.enter(None);
    }
}

impl fmt::Debug for SimFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimFiles({} in flight)", self.tickets.len())
    }
}

/// What is left of a core's operations, for [`World::assert_quiet`].
pub(super) fn leftovers(world: &World, core: usize) -> Vec<String> {
    let state = world.lock();
    let core = &state.cores[core];
    let mut found = Vec::new();
    for (group, pool) in [Group::Small, Group::Bulk, Group::Datagram].iter().zip(&core.pools) {
        if pool.on_loan() > 0 {
            found.push(format!("{} buffers of {group:?} on loan", pool.on_loan()));
        }
    }
    if !core.ops.is_empty() {
        found.push(format!("{} operations under way", core.ops.len()));
    }
    if core.open_connections() > 0 {
        found.push(format!("{} connections open", core.open_connections()));
    }
    let unseen = |ready: &&Ready| {
        matches!(ready.of, Some(Of { direction: Direction::In, .. })) && ready.loan.is_some()
    };
    let unseen = core.ready.iter().chain(&core.overflown).filter(unseen).count();
    if unseen > 0 {
        found.push(format!("{unseen} receives not looked at"));
    }
    found
}
