//! The store's engine against `redis-server`: random commands from a seed are said to both, in
//! lockstep, and what both reply has to be the same, byte for byte but for what a rule allows.
//!
//! ```text
//!   families ── a line a command: a template of its words, and how its replies are compared
//!      │
//!      ▼  seed
//!   Game: plays ──┬──► Ours: an engine in process ──────┐
//!                 └──► Peer: redis-server, by a socket ─┴─► judge ─► Mismatch ─► shrunk
//! ```
//!
//! - [`template`]: words by chance, of a small language. [`words`]: keys, values and numbers that
//!   are small, and those that are hostile.
//! - [`families`]: every command that the engine has, and those that are not compared, with the
//!   reason.
//! - [`judge`]: when two replies are the same, and where the two servers may differ.
//! - [`duel`]: a game is played on both; the shortest that shows a difference is looked for.
//!
//! Time is the machine's for both. What expires within a test does so between two plays, where
//! nobody looks, and relative times are never so near to each other that a millisecond decides.
//!
//! `SEXTANT_DIFF_SECONDS=3600` plays for an hour, `SEXTANT_SEED=7` begins at a game,
//! `SEXTANT_DIFF_ONLY=strings,bitmaps` plays some families alone, `all`
//! plays those in which differences are known as well.

pub mod duel;
pub mod families;
pub mod judge;
pub mod ours;
pub mod peer;
pub mod template;
pub mod words;
