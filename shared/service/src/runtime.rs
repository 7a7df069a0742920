//! The control thread: tokio's current-thread runtime on a thread of its own, beside the cores.

use std::future::Future;
use std::io;
use std::thread::{Builder, JoinHandle};

/// Threads that tokio may start for blocking calls, such as the resolver's.
const BLOCKING_THREADS_MAX: usize = 4;

/// Runs what `start` makes on a new thread called `name`, and gives its handle.
///
/// The future lives on that one thread, so it need not be `Send`. When it ends, tasks that it
/// spawned are dropped. A panic in it is the process's ([`abort_on_panic`]).
///
/// [`abort_on_panic`]: crate::process::abort_on_panic
///
/// # Errors
///
/// No thread, or no runtime, can be made: a resource of the machine is exhausted.
pub fn spawn<F, T>(
    name: &str,
    start: impl FnOnce() -> F + Send + 'static,
) -> io::Result<JoinHandle<T>>
where
    F: Future<Output = T>,
    T: Send + 'static,
{
    let runtime = runtime()?;
    Builder::new().name(name.to_owned()).spawn(move || runtime.block_on(start()))
}

/// Runs `future` on this thread until it ends: for a `main` that is itself the control thread.
///
/// # Errors
///
/// No runtime can be made.
pub fn run<T>(future: impl Future<Output = T>) -> io::Result<T> {
    Ok(runtime()?.block_on(future))
}

fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_future_runs_on_the_named_thread_and_its_result_comes_back() {
        let handle = spawn("control", || async {
            // Not `Send`, and held across an await.
            let name = std::rc::Rc::new(std::thread::current().name().map(str::to_owned));
            tokio::task::yield_now().await;
            name.as_ref().clone()
        });
        assert_eq!(handle.unwrap().join().unwrap().as_deref(), Some("control"));
    }
}
