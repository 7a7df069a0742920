//! The floor's server on the ring: one core, any driver.

use std::net::TcpListener;
use std::sync::Arc;

use anyhow::{Context, Result};
use bytes::Bytes;
use sextant_ring::core::{App, CloseReason, ConnId, Core, Cx, Limits, SendError};
use sextant_ring::driver::{Driver, Listener};
use sextant_ring::epoll::{self, Epoll};
use sextant_ring::mesh::{Remote, mesh};
use sextant_ring::time::Clock;
use sextant_ring::uring::{self, Uring};

use super::FRAME_BYTES;
use super::session::Role;

pub(super) fn serve_on_uring(listeners: Vec<TcpListener>, connections_max: u32) -> Result<()> {
    let remote = Remote::host()?;
    let options = uring::Options { sockets_max: connections_max, ..uring::Options::default() };
    let driver = Uring::new(&options, remote.clone()).context("no ring")?;
    serve_with(driver, remote, listeners, connections_max)
}

pub(super) fn serve_on_epoll(listeners: Vec<TcpListener>) -> Result<()> {
    let remote = Remote::host()?;
    let options = epoll::Options::default();
    let driver = Epoll::new(&options, remote.clone()).context("no epoll")?;
    serve_with(driver, remote, listeners, options.sockets_max)
}

fn serve_with<D: Driver>(
    driver: D,
    remote: Remote,
    listeners: Vec<TcpListener>,
    connections_max: u32,
) -> Result<()> {
    let mut ports = mesh(&[remote], 0, 16);
    let port = ports.pop().context("a mesh of one core has a port")?;
    let listeners = listeners
        .into_iter()
        .map(|listener| Listener::new(listener).map(Arc::new))
        .collect::<std::io::Result<Vec<_>>>()?;
    let limits = Limits { connections_max, send_bytes_max: 16 << 20, ..Limits::default() };
    let core = Core::new(driver, Server::default(), port, listeners, limits, Clock::read());
    core.run().context("the core ended")?;
    Ok(())
}

#[derive(Default)]
struct Server {
    /// By the index of a connection.
    roles: Vec<Option<Role>>,
    subscribers: Vec<ConnId>,
    /// A publisher's frame whose end is still to come.
    partial: Vec<u8>,
}

impl Server {
    fn greet(&mut self, cx: &mut Cx<()>, conn: ConnId, role: Role) -> Result<(), SendError> {
        match role {
            Role::Close => {
                cx.abort(conn);
                return Ok(());
            }
            Role::Subscribe => self.subscribers.push(conn),
            Role::Echo | Role::Publish => {}
        }
        self.roles[conn.index()] = Some(role);
        cx.send(conn, Bytes::from_static(b"+"))
    }

    fn publish(&mut self, cx: &mut Cx<()>, mut data: &[u8]) -> Result<(), SendError> {
        while !data.is_empty() {
            let missing = FRAME_BYTES - self.partial.len();
            let (part, rest) = data.split_at(missing.min(data.len()));
            data = rest;
            self.partial.extend_from_slice(part);
            if self.partial.len() == FRAME_BYTES {
                let frame = cx.share(0, &self.partial);
                self.partial.clear();
                for subscriber in &self.subscribers {
                    cx.send_shared(*subscriber, &frame)?;
                }
            }
        }
        Ok(())
    }
}

impl App for Server {
    type Message = ();

    fn on_accept(&mut self, _cx: &mut Cx<()>, conn: ConnId, _listener: usize) {
        if self.roles.len() <= conn.index() {
            self.roles.resize(conn.index() + 1, None);
        }
        self.roles[conn.index()] = None;
    }

    fn on_data(&mut self, cx: &mut Cx<()>, conn: ConnId, data: &[u8]) {
        let done = match (self.roles[conn.index()], data) {
            (None, [wish, ..]) => self.greet(cx, conn, Role::of(*wish)),
            (Some(Role::Echo), data) => cx.send_copy(conn, data),
            (Some(Role::Publish), data) => self.publish(cx, data),
            (None | Some(Role::Subscribe | Role::Close), _) => Ok(()),
        };
        // A client that does not read has no place here.
        if done == Err(SendError::Full) {
            cx.abort(conn);
        }
    }

    fn on_close(&mut self, _cx: &mut Cx<()>, conn: ConnId, _reason: CloseReason) {
        if self.roles[conn.index()] == Some(Role::Subscribe) {
            self.subscribers.retain(|other| *other != conn);
        }
    }
}
