//! One thread per core, each with its own io_uring: sockets, files, timers and the mesh between cores.
