//! Work that is spread over the cores.

use std::{
    sync::{Mutex, PoisonError},
    thread,
};

/// Does all of it, on every core; what it gave, in the order in which it was done.
pub fn on_all_cores<W: Send, T: Send>(work: Vec<W>, deed: impl Fn(W) -> T + Sync) -> Vec<T> {
    let left = Mutex::new(work);
    let done = Mutex::new(Vec::new());
    let worker = || {
        loop {
            let next = left.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let Some(next) = next else { return };
            let result = deed(next);
            done.lock().unwrap_or_else(PoisonError::into_inner).push(result);
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(worker);
        }
    });
    done.into_inner().unwrap_or_else(PoisonError::into_inner)
}
