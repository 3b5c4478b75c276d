//! Named places at which a test lets the process die, as `kill -9` would: nothing is unwound,
//! flushed or said.
//!
//! `WALHOOK_FAILPOINT` arms one of them: `flushed` the first time that it is reached, `flushed@7`
//! the seventh time, `rendering~id=7` only where it is about row 7; with `!` at the end the place
//! panics instead. Only builds with debug assertions have them: in a release nothing of this is
//! compiled, and the variable is not read.

/// All names, in the order in which an event meets them. The crash suite kills at each.
pub const POINTS: &[&str] = &[
    "begin_seen",
    "in_transaction",
    "rendering",
    "commit_seen",
    "before_post",
    "post_sent",
    "answered",
    "before_commit",
    "commit_sent",
    "flushed",
    "refilled",
    "replaying",
    "backfilling",
    "draining",
];

/// Between the commit of a callback's row and the answer to its sender. No event comes by here.
pub const CALLBACK_KEPT: &str = "callback_kept";

/// The slot is there, and the state knows of nothing yet.
pub(crate) const SLOT_MADE: &str = "slot_made";

/// The state has begun: from here on no start is the first one.
pub(crate) const STATE_BEGUN: &str = "state_begun";

/// The process gets no further if this place is armed.
#[inline]
pub(crate) fn reached(name: &'static str) {
    reached_over(name, String::new);
}

/// As [`reached`]; `about` says what the place is about, and is asked only if it is armed.
#[inline]
pub(crate) fn reached_over(name: &'static str, about: impl FnOnce() -> String) {
    #[cfg(debug_assertions)]
    if armed::is_due(name, about) {
        armed::act();
    }
    #[cfg(not(debug_assertions))]
    let _nothing = (name, about);
}

/// Awaits `future`; if this place is armed, the process dies in the middle of it, or when it has
/// ended and nobody knows.
pub(crate) async fn during<F: Future>(name: &'static str, future: F) -> F::Output {
    #[cfg(debug_assertions)]
    if armed::is_due(name, String::new) {
        tokio::select! {
            biased; // polled once at least: what is to be sent is under way
            _ended = future => {}
            () = tokio::time::sleep(armed::MIDDLE) => {}
        }
        armed::act();
    }
    #[cfg(not(debug_assertions))]
    let _nothing = name;
    future.await
}

#[cfg(debug_assertions)]
mod armed {
    use std::sync::OnceLock;
    use std::sync::atomic::AtomicU32;
    use std::sync::atomic::Ordering;
    use std::time::Duration;

    use rustix::process::Signal;

    /// Less than a commit to disk takes, or a receiver that thinks for a moment.
    pub(super) const MIDDLE: Duration = Duration::from_millis(1);

    struct ArmedFailpoint {
        name: String,
        about: Option<String>,
        /// Times that it is passed before.
        left: AtomicU32,
        panics: bool,
    }

    fn armed() -> Option<&'static ArmedFailpoint> {
        static ARMED: OnceLock<Option<ArmedFailpoint>> = OnceLock::new();
        let read = || std::env::var("WALHOOK_FAILPOINT").ok().map(|text| parse(&text));
        ARMED.get_or_init(read).as_ref()
    }

    fn parse(text: &str) -> ArmedFailpoint {
        let (text, panics) = match text.strip_suffix('!') {
            Some(rest) => (rest, true),
            None => (text, false),
        };
        let (text, about) = match text.split_once('~') {
            Some((rest, about)) => (rest, Some(about.to_owned())),
            None => (text, None),
        };
        let (name, times) = text.split_once('@').unwrap_or((text, "1"));
        let times: u32 = times.parse().unwrap_or(1);
        ArmedFailpoint {
            name: name.to_owned(),
            about,
            left: AtomicU32::new(times.max(1) - 1),
            panics,
        }
    }

    pub(super) fn is_due(name: &str, about: impl FnOnce() -> String) -> bool {
        let Some(armed) = armed().filter(|armed| armed.name == name) else { return false };
        if armed.about.as_ref().is_some_and(|wanted| !about().contains(wanted)) {
            return false;
        }
        let pass = |left: u32| left.checked_sub(1);
        armed.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, pass).is_err()
    }

    #[expect(clippy::panic, reason = "that is what was asked for")]
    pub(super) fn act() -> ! {
        if armed().is_some_and(|armed| armed.panics) {
            panic!("a test asked for it");
        }
        let own = rustix::process::getpid();
        loop {
            rustix::process::kill_process(own, Signal::KILL).unwrap_or_default();
            std::thread::park();
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_place_can_be_armed_for_a_time_and_a_row() {
            let cases = [
                ("flushed", ("flushed", None, 0, false)),
                ("flushed@7", ("flushed", None, 6, false)),
                ("rendering~id=7", ("rendering", Some("id=7"), 0, false)),
                ("rendering@2~id=7!", ("rendering", Some("id=7"), 1, true)),
                ("flushed@x", ("flushed", None, 0, false)),
            ];
            for (text, expected) in cases {
                let ArmedFailpoint { name, about, left, panics } = parse(text);
                let found = (name.as_str(), about.as_deref(), left.into_inner(), panics);
                assert_eq!(found, expected, "case: {text}");
            }
        }
    }
}
