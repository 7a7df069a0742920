//! End to end: real clients against the daemons as they are shipped.
//!
//! ```text
//!   smoke     what MQTT 3.1.1 and 5 promise, by mosquitto's clients and by single packets
//!   conformance  statements of the MQTT standards that no other test proves
//!   api       the HTTP side: messages, receipts, tokens, errors, who may what
//!   auth      tokens that others sign, an HTTP hook
//!   crash     kill -9 in the middle of ten thousand publishes
//!   described what openapi.json says of every answer, by schemathesis
//!   drivers   the daemon on io_uring, on epoll, and where io_uring is forbidden
//!   enhanced  clients that prove that they know a password
//!   hostile   clients that break rules, send garbage, do not read; a disk that is full
//!   cli       sextant up, status, push; what is said when something is wrong
//!   others    what trips other brokers, by what it is
//!   campaigns what senders send, through kill -9
//!   clients   MQTT.js in Node and in a browser, paho C, rumqttc
//!   hooks     what became of messages, told to webhooks
//!   limits    how fast clients may come and publish
//!   operators clients listed, shown, kicked and banned, over HTTP
//!   platform  senders, reviewers and devices, by curl and mosquitto
//!   presence  who comes and goes, told to subscribers and to a webhook
//!   senders   the project's own clients: messages sent, shown, counted, taken back
//!   store     redis-cli, redis-benchmark and kill -9 against the store daemon
//!   systemd   units, socket activation, notifications
//!   tls       certificates of both sides, resumption, renewal
//!   traces    what one client sends and is sent, packet by packet
//!   transports WebSocket and the PROXY protocol, on the port of MQTT
//! ```

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

mod api;
mod auth;
mod campaigns;
mod cli;
mod clients;
mod conformance;
mod crash;
mod described;
mod drivers;
mod enhanced;
mod hooks;
mod hostile;
mod limits;
mod operators;
mod others;
mod platform;
mod presence;
mod senders;
mod smoke;
mod store;
mod systemd;
mod tls;
mod traces;
mod transports;
