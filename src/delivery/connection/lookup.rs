//! Look-ups of names: shared per name, limited in number, each with a deadline.
//!
//! `getaddrinfo` takes a thread and cannot be called off: a name whose servers do not answer holds one
//! for ten seconds and more. So there is one look-up of a name at a time for all who want it, and names
//! that are slow have few threads for all of them, those that nobody has looked up yet have more, and
//! names that were found before wait for neither.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::net::ToSocketAddrs;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use reqwest::dns::Addrs;
use reqwest::dns::Name;
use reqwest::dns::Resolve;
use reqwest::dns::Resolving;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::delivery::connection::resolve_error::ResolveError;

/// A look-up that takes longer has failed for all who wait; its thread goes on.
const LOOKUP_MAX: Duration = Duration::from_secs(5);

/// A name that takes longer is a slow one.
const SLOW_AFTER: Duration = Duration::from_secs(1);

/// Threads at once, of the 512 that the runtime has: for slow names, for unknown ones until they are
/// slow, and so many in all that those found before still have some; and for all.
const SLOW_MAX: usize = 32;
const UNKNOWN_MAX: usize = 64;
const STRANGERS_MAX: usize = 350;
const ALL_MAX: usize = 400;

/// How long to wait for a thread, and how often to look.
const THREAD_WAIT: Duration = Duration::from_secs(3);
const THREAD_LOOK: Duration = Duration::from_millis(50);

/// Names to remember.
const NAMES_MAX: usize = 20_000;

/// The addresses of a name, as the system gives them.
type Ask = Arc<dyn Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync>;

type Found = Option<Result<Vec<SocketAddr>, Arc<io::Error>>>;

/// Name resolution for all endpoints: one look-up for each name at a time.
#[derive(Clone)]
pub(crate) struct Lookups {
    ask: Ask,
    books: Arc<Mutex<Books>>,
}

#[derive(Default)]
struct Books {
    flights: HashMap<String, Flight>,
    /// Whether the name was found when it was asked last, or was slow.
    known: HashMap<String, Kind>,
}

struct Flight {
    found: watch::Receiver<Found>,
    begun: Instant,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    Found,
    Unknown,
    Slow,
}

impl Lookups {
    /// `getaddrinfo`, with the machine's hosts file and search domains.
    pub(crate) fn system() -> Self {
        Self::new(Arc::new(|name| Ok((name, 0).to_socket_addrs()?.collect())))
    }

    fn new(ask: Ask) -> Self {
        Self { ask, books: Arc::default() }
    }

    async fn find(&self, name: String) -> Result<Vec<SocketAddr>, ResolveError> {
        let asked = Instant::now();
        let (mut found, begun) = loop {
            match self.join(&name) {
                Some(flight) => break flight,
                None if asked.elapsed() > THREAD_WAIT => return Err(ResolveError::Busy),
                None => tokio::time::sleep(THREAD_LOOK).await,
            }
        };
        let waited =
            tokio::time::timeout_at(begun + LOOKUP_MAX, found.wait_for(Option::is_some)).await;
        match waited {
            Ok(Ok(found)) => match &*found {
                Some(Ok(addresses)) => Ok(addresses.clone()),
                Some(Err(error)) => Err(ResolveError::Failed(same(error))),
                None => Err(ResolveError::Late),
            },
            // The thread has died without an answer.
            Ok(Err(_)) => Err(ResolveError::Failed(io::Error::other("the look-up was given up"))),
            Err(_) => Err(ResolveError::Late),
        }
    }

    /// The look-up of this name that is under way, or one that is begun here, and when it began;
    /// `None` while there is no thread for it.
    fn join(&self, name: &str) -> Option<(watch::Receiver<Found>, Instant)> {
        let mut books = self.books();
        if let Some(flight) = books.flights.get(name) {
            return Some((flight.found.clone(), flight.begun));
        }
        let now = Instant::now();
        books.note_slow(now);
        let kind = books.known.get(name).copied().unwrap_or(Kind::Unknown);
        if !books.has_thread(kind) {
            return None;
        }
        let (land, found) = watch::channel(None);
        let flight = Flight { found: found.clone(), begun: now, kind };
        books.flights.insert(name.to_owned(), flight);
        drop(books);
        let (lookups, name) = (self.clone(), name.to_owned());
        tokio::task::spawn_blocking(move || {
            let answer = (lookups.ask)(&name);
            lookups.books().end(&name, answer.is_ok());
            land.send_replace(Some(answer.map_err(Arc::new)));
        });
        Some((found, now))
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        // Nothing can panic while it is held.
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The same error, for another that waits for the look-up.
fn same(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}

impl Books {
    /// Names that take long count among the slow ones from here on, and leave the others theirs.
    fn note_slow(&mut self, now: Instant) {
        for (name, flight) in &mut self.flights {
            if flight.kind != Kind::Slow && now.duration_since(flight.begun) > SLOW_AFTER {
                flight.kind = Kind::Slow;
                self.known.insert(name.clone(), Kind::Slow);
            }
        }
    }

    fn has_thread(&self, kind: Kind) -> bool {
        let same = || self.flights.values().filter(|flight| flight.kind == kind).count();
        let all = self.flights.len();
        match kind {
            Kind::Found => all < ALL_MAX,
            Kind::Unknown => all < STRANGERS_MAX && same() < UNKNOWN_MAX,
            Kind::Slow => all < STRANGERS_MAX && same() < SLOW_MAX,
        }
    }

    fn end(&mut self, name: &str, is_found: bool) {
        let flight = self.flights.remove(name);
        if self.known.len() >= NAMES_MAX {
            self.known.clear();
        }
        let was_slow = flight.is_some_and(|flight| flight.begun.elapsed() > SLOW_AFTER);
        let kind = match (was_slow, is_found) {
            (true, _) => Kind::Slow,
            (false, true) => Kind::Found,
            (false, false) => Kind::Unknown,
        };
        self.known.insert(name.to_owned(), kind);
    }
}

impl Resolve for Lookups {
    fn resolve(&self, name: Name) -> Resolving {
        let lookups = self.clone();
        Box::pin(async move {
            let addresses = lookups.find(name.as_str().to_owned()).await?;
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::sync::atomic::AtomicUsize;
    use std::sync::atomic::Ordering;

    use tokio::task::JoinSet;

    use super::*;

    /// Names that begin with `dead` answer when they are let go; counts the threads.
    struct Names {
        lookups: Lookups,
        asked: Arc<AtomicUsize>,
        is_free: Arc<AtomicBool>,
    }

    impl Names {
        fn new() -> Self {
            let (asked, is_free) =
                (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
            let (count, gate) = (Arc::clone(&asked), Arc::clone(&is_free));
            let ask = move |name: &str| {
                count.fetch_add(1, Ordering::Relaxed);
                while name.starts_with("dead") && !gate.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Ok(vec![SocketAddr::from(([127, 0, 0, 1], 0))])
            };
            Self { lookups: Lookups::new(Arc::new(ask)), asked, is_free }
        }
    }

    impl Drop for Names {
        fn drop(&mut self) {
            self.is_free.store(true, Ordering::Relaxed);
        }
    }

    #[tokio::test]
    async fn all_who_want_a_name_share_one_look_up() {
        let names = Names::new();
        let mut waiting = JoinSet::new();
        for _ in 0..50 {
            let lookups = names.lookups.clone();
            waiting.spawn(async move { lookups.find("dead.test".to_owned()).await.is_ok() });
        }
        while names.asked.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        names.is_free.store(true, Ordering::Relaxed);
        assert!(waiting.join_all().await.into_iter().all(|is_found| is_found));
        assert_eq!(names.asked.load(Ordering::Relaxed), 1);
    }

    /// 300 names hang, more than there are threads for such; one that is fine is found at once.
    #[tokio::test]
    async fn a_healthy_name_does_not_wait_for_those_that_hang() {
        let names = Names::new();
        assert!(names.lookups.find("fine.test".to_owned()).await.is_ok());
        let mut hanging = JoinSet::new();
        for number in 0..300 {
            let lookups = names.lookups.clone();
            hanging.spawn(async move { lookups.find(format!("dead{number}.test")).await });
        }
        while names.asked.load(Ordering::Relaxed) < 1 + UNKNOWN_MAX {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(names.lookups.find("fine.test".to_owned()).await.is_ok());
        let mut failed = [0, 0];
        while let Some(ended) = hanging.join_next().await {
            match ended.unwrap() {
                Err(ResolveError::Late) => failed[0] += 1,
                Err(ResolveError::Busy) => failed[1] += 1,
                other => panic!("{other:?}"),
            }
            assert!(names.lookups.find("fine.test".to_owned()).await.is_ok());
        }
        assert_eq!(failed[0] + failed[1], 300);
        assert!(names.lookups.books().flights.len() <= STRANGERS_MAX);
        assert!(names.lookups.find("new.test".to_owned()).await.is_ok(), "nor does a new one");
    }
}
