//! Threads for what only computes: unpacking, hashing, packing. Devices, files and the network stay with the thread that owns them, so the order
//! of deeds on the medium does not depend on how fast anything is computed.
//!
//! Results come back in the order in which the work was handed over. What is under way is bounded by the bytes that it holds.

use std::{
    collections::VecDeque,
    num::NonZero,
    sync::{Arc, Mutex, OnceLock, PoisonError, mpsc},
    thread::{self, JoinHandle},
};

use crate::{
    codec::Decoder,
    error::{Error, Result},
    limits::{MAX_THREADS, THREAD_BYTES, UNDER_WAY_BYTES},
};

type Work<R> = Box<dyn FnOnce(&mut Decoder) -> Result<R> + Send>;

struct Errand<R> {
    work: Work<R>,
    done: mpsc::SyncSender<Result<R>>,
}

enum Pending<R> {
    Done(Result<R>),
    UnderWay(mpsc::Receiver<Result<R>>),
}

/// The threads, and what they were given.
pub struct Crew<R> {
    /// None before there is work that is worth a thread, and once the crew goes home.
    errands: Option<mpsc::Sender<Errand<R>>>,
    threads: Vec<JoinHandle<()>>,
    cores: usize,
    /// For small work, on a machine with one core, and where no thread can be made.
    own: Decoder,
    /// The oldest first, each with the bytes that it holds.
    pending: VecDeque<(usize, Pending<R>)>,
    held_bytes: usize,
}

impl<R: Send + 'static> Crew<R> {
    /// As many threads as there are cores, within the bound, made when they are needed. With one core the work is done where it is handed over.
    #[must_use]
    pub fn new() -> Self {
        // The system reads several files to tell.
        static CORES: OnceLock<usize> = OnceLock::new();
        let cores = *CORES.get_or_init(|| thread::available_parallelism().map_or(1, NonZero::get));
        Self {
            errands: None,
            threads: Vec::new(),
            cores: cores.min(MAX_THREADS),
            own: Decoder::default(),
            pending: VecDeque::new(),
            held_bytes: 0,
        }
    }

    fn call(&mut self) {
        let (errands, waiting) = mpsc::channel::<Errand<R>>();
        let waiting = Arc::new(Mutex::new(waiting));
        for _ in 0..self.cores {
            let waiting = Arc::clone(&waiting);
            let mut decoder = Decoder::default();
            let thread = thread::Builder::new().name("crew".into()).spawn(move || {
                loop {
                    // Whoever waits for the next errand holds the lock, and the others wait for the lock.
                    let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok(errand) = next else { return };
                    // Nobody waits for it any more: the install has failed elsewhere.
                    let _ = errand.done.send((errand.work)(&mut decoder));
                }
            });
            self.threads.extend(thread);
        }
        self.errands = (!self.threads.is_empty()).then_some(errands);
        // Where none can be made, none is tried again.
        self.cores = 1;
    }

    /// Whether work that holds so many bytes may be handed over now. What is larger than the bound waits until it is alone.
    #[must_use]
    pub fn has_room(&self, bytes: usize) -> bool {
        self.pending.is_empty() || self.held_bytes.saturating_add(bytes) <= UNDER_WAY_BYTES
    }

    /// Hands over work that holds so many bytes.
    pub fn give(&mut self, bytes: usize, work: impl FnOnce(&mut Decoder) -> Result<R> + Send + 'static) {
        if self.cores > 1 && bytes >= THREAD_BYTES {
            self.call();
        }
        let pending = match &self.errands {
            Some(errands) => {
                let (done, result) = mpsc::sync_channel(1);
                match errands.send(Errand { work: Box::new(work), done }) {
                    Ok(()) => Pending::UnderWay(result),
                    Err(mpsc::SendError(errand)) => Pending::Done((errand.work)(&mut self.own)),
                }
            }
            None => Pending::Done(work(&mut self.own)),
        };
        self.held_bytes += bytes;
        self.pending.push_back((bytes, pending));
    }

    /// The result of the oldest work that was handed over; waits for it. `None` when nothing is under way.
    pub fn take(&mut self) -> Option<Result<R>> {
        let (bytes, pending) = self.pending.pop_front()?;
        self.held_bytes -= bytes;
        Some(match pending {
            Pending::Done(result) => result,
            Pending::UnderWay(result) => {
                result.recv().unwrap_or(Err(Error::Bug { detail: "a thread has ended without a result" }))
            }
        })
    }
}

impl<R: Send + 'static> Default for Crew<R> {
    fn default() -> Self {
        Self::new()
    }
}

impl<R> Drop for Crew<R> {
    fn drop(&mut self) {
        self.errands = None;
        self.pending.clear();
        for thread in self.threads.drain(..) {
            // It has panicked, which was told where its result was waited for.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_the_order_of_the_work_and_the_bytes_are_bounded() {
        let mut crew = Crew::new();
        assert!(crew.take().is_none());
        assert!(crew.has_room(UNDER_WAY_BYTES * 2), "alone, it may be as large as it is");
        for number in 0..100u64 {
            crew.give(UNDER_WAY_BYTES / 100, move |_| {
                thread::sleep(std::time::Duration::from_micros((100 - number) * 10));
                Ok(number)
            });
        }
        assert!(!crew.has_room(UNDER_WAY_BYTES / 50));
        for number in 0..100 {
            assert_eq!(crew.take().unwrap().unwrap(), number);
        }
        assert!(crew.take().is_none());
        assert!(crew.has_room(UNDER_WAY_BYTES));
    }

    #[test]
    fn an_errand_that_fails_is_an_error_and_the_next_one_goes_on() {
        let mut crew = Crew::new();
        crew.give(1, |_| Err(Error::Bug { detail: "as planned" }));
        crew.give(1, |_| Ok(7));
        assert!(crew.take().unwrap().is_err());
        assert_eq!(crew.take().unwrap().unwrap(), 7);
        crew.give(1, |_| Ok(8));
        drop(crew);
    }
}
