#![doc = include_str!("../README.md")]

mod backoff;
pub mod device;
pub mod sender;
pub mod types;

pub use backoff::Backoff;
pub use device::Device;
pub use sender::{Error, Problem, Sender};
pub use uuid::Uuid;
