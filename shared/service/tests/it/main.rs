//! The crate's public surface as a daemon uses it: processes, sockets and files are real.
