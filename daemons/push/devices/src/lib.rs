//! The devices that messages can be pushed to, and the targets that name them.
//!
//! ```text
//!   id, app ┐                        ┌ one device, an alias
//!   tags    ├─▶ Registry ─▶ numbers ◀┤ a list
//!   …       ┘       │                │ `city:sz and not vip`
//!                records             └ everyone of an app
//! ```
//!
//! - [`Registry`]: devices by ids and aliases, each with a number, and what is done to them.
//! - [`Registry::next_record`]: all of it as records, for the owner's log.
//! - [`syntax`]: what the names and values of a device look like.
//! - [`expression`], [`Registry::evaluate`]: what an expression says, and of which devices.
//! - [`Target`], [`Registry::resolve`]: whom a message is for.
//! - [`list`], [`Gather`]: lists that are uploaded, as they come.
//! - [`Registry::groups`]: devices by time zone, version and others.
//!
//! A registry is a state machine without clock, files or threads. Its owner, one thread, appends
//! the record that each operation gives to a log, and replays the log at its start; the same
//! records make the same registry, with the same numbers. What an operation did holds at once, and
//! is durable once its record is.
//!
//! A **number** names a device in bitmaps, queues and audits. It is dense over all apps, and its
//! own until the owner says that nothing refers to a removed device any more: only
//! [`Registry::release`] lets numbers be given out again.
//!
//! Everything has a limit, see [`Limits`].

mod app;
mod codec;
mod column;
mod device;
mod evaluate;
pub mod expression;
mod group;
mod index;
mod limits;
pub mod list;
mod posting;
mod record;
mod refused;
mod registry;
mod rows;
mod snapshot;
mod store;
pub mod syntax;
mod target;
mod terms;
#[cfg(test)]
mod tests;
mod zones;

pub use device::{Device, Edit, Entry, Field, Number, Update, Value};
pub use evaluate::{EvaluateError, Explained, LOOKS_MAX, WORDS_MAX};
pub use expression::{DEPTH_MAX, EXPRESSION_BYTES_MAX, Expression, LEAVES_MAX, ParseError};
pub use group::{By, Group};
pub use limits::{
    APP_BYTES_MAX, ID_BYTES_MAX, LimitError, Limits, PLATFORM_BYTES_MAX, TIME_ZONE_BYTES_MAX,
    VERSION_BYTES_MAX,
};
pub use list::{COLUMNS_MAX, LINE_BYTES_MAX, Line, ListError, ListFormat, ListProblem, ListReader};
pub use refused::{Refused, ReplayError};
pub use registry::{Change, Registry, Usage, What};
pub use roaring::RoaringBitmap;
pub use snapshot::Snapshot;
pub use syntax::{BUILT_IN_KEYS, Version};
pub use target::{EXAMPLES_MAX, Gather, Listed, Name, Resolved, Target, Unknown};
