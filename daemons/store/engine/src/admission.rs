//! What a client may do now: subscribed connections have few commands, a pause holds them up, and
//! a full memory or log refuses those that write.
//!
//! A client that may do everything costs a look at one flag, [`Client::guarded`].
//!
//! [`Client::guarded`]: crate::client::Client::guarded

use sextant_resp::Args;

use crate::acl::User;
use crate::client::ClientId;
use crate::command::{Flags, Known};
use crate::engine::Engine;
use crate::fault::Fault;
use crate::pubsub::Space;

/// A command that may be done now, or later.
pub(crate) enum Admitted {
    Now(Known),
    /// By EXEC.
    Queue(Known),
    /// When a pause is over.
    Postponed,
}

/// A time in which commands wait.
pub(crate) struct Pause {
    /// Its end, in milliseconds since 1970.
    pub(crate) until: u64,
    /// All commands wait, or only those that may write.
    pub(crate) all: bool,
    waiting: Vec<ClientId>,
}

impl Engine {
    /// A command that is whole and allowed now, or why not.
    pub(crate) fn admit(&mut self, id: ClientId, args: Args<'_>) -> Result<Admitted, Fault> {
        let known = self.find(args)?;
        let spec = known.spec;
        let client = self.clients.get_mut(id).expect("its command is being done");
        let queues = client.multi.is_some() && !spec.flags.has(Flags::NO_MULTI);
        if client.guarded {
            self.check_guarded(id, known, args)?;
        }
        if self.is_over_memory() && !self.evict() && self.wants_memory(id, known) {
            return Err(Fault::OutOfMemory);
        }
        self.check_room(spec)?;
        if self.pause.is_some() && self.is_paused(id, known) {
            return Ok(Admitted::Postponed);
        }
        Ok(if queues { Admitted::Queue(known) } else { Admitted::Now(known) })
    }

    fn check_guarded(&mut self, id: ClientId, known: Known, args: Args<'_>) -> Result<(), Fault> {
        self.permit(id, known, args, "toplevel").inspect_err(|_| {
            self.stats.rejected(known.number);
        })?;
        let client = self.client_mut(id);
        let subscribed = Space::ALL.iter().any(|space| client.subscribed(*space) > 0);
        if subscribed && !client.output.resp3 && !known.spec.flags.has(Flags::SUBSCRIBED) {
            let name = &self.table.rows()[known.number as usize].name;
            return Err(Fault::text(format!(
                "ERR Can't execute '{name}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT \
                 / RESET are allowed in this context"
            )));
        }
        Ok(())
    }

    /// Finds out whether a client's commands have to be looked at, after anything of that changed.
    pub(crate) fn guard(&mut self, id: ClientId) {
        let Some(client) = self.clients.get_mut(id) else { return };
        let user = client.user.as_deref().and_then(|name| self.acl.user(name));
        let unlimited = user.is_some_and(User::is_unlimited);
        client.guarded = client.subscriptions.is_some() || !unlimited;
    }

    /// Whether a command takes memory, by itself or by what was queued for it.
    fn wants_memory(&self, id: ClientId, known: Known) -> bool {
        let queued = self.clients.get(id).and_then(|client| client.multi.as_ref());
        let queued = queued.filter(|_| known.spec.name == "exec").map_or(0, |multi| multi.flags);
        known.spec.flags.has(Flags::DENYOOM) || Flags(queued).has(Flags::DENYOOM)
    }

    fn is_paused(&mut self, id: ClientId, known: Known) -> bool {
        let multi = self.client_mut(id).multi.as_ref().map_or(0, |multi| multi.flags);
        let flags = if known.spec.name == "exec" { Flags(multi) } else { known.spec.flags };
        let writes = flags.has(Flags::WRITE) || matches!(known.spec.name, "publish" | "spublish");
        let Some(pause) = &mut self.pause else { return false };
        let waits = pause.until > self.keys.now() && (pause.all || writes);
        if waits {
            pause.waiting.push(id);
        }
        waits
    }

    pub(crate) fn postpone(&mut self, id: ClientId, args: Args<'_>) {
        self.client_mut(id).postponed = Some(args.to_owned());
    }

    /// Lets commands wait for so many milliseconds. A pause that holds up more, or that lasts
    /// longer, stays so.
    pub(crate) fn begin_pause(&mut self, ms: u64, all: bool) {
        let until = self.keys.now().saturating_add(ms);
        let pause = self.pause.get_or_insert(Pause { until, all, waiting: Vec::new() });
        pause.until = pause.until.max(until);
        pause.all |= all;
    }

    /// Does what waited, if a pause is over.
    pub(crate) fn end_pause(&mut self) {
        let now = self.keys.now();
        let Some(pause) = self.pause.take_if(|pause| pause.until <= now) else { return };
        for id in pause.waiting {
            let Some(client) = self.clients.get_mut(id) else { continue };
            let Some(command) = client.postponed.take() else { continue };
            self.counts.commands -= 1;
            self.execute(id, command.args());
            self.clients.tell(id);
        }
    }
}
