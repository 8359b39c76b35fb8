//! What one image's reads waited for, and who brought it.

use crate::readers::unix_ms;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use streamer_api::{STALLS_KEPT, Stall, StallCause};
use streamer_swarm::From;

/// Arrivals remembered: more than the pieces of the largest read and of all that come beside it.
const ARRIVALS_KEPT: usize = 1024;

/// The last stalls, and the last arrivals that explain them.
#[derive(Debug, Default)]
pub(crate) struct Diary {
    stalls: Mutex<VecDeque<Stall>>,
    arrivals: Mutex<VecDeque<Arrival>>,
}

#[derive(Debug, Clone, Copy)]
struct Arrival {
    piece: u32,
    from: From,
    address: Option<SocketAddr>,
}

/// A read that waits.
#[derive(Debug)]
pub(crate) struct Wait {
    began: SystemTime,
    since: Instant,
    at: Duration,
    reader: String,
    absent: Vec<u32>,
    profile: Option<String>,
    cause: StallCause,
}

impl Wait {
    /// A read waits from now on for pieces, at least one.
    pub(crate) fn new(reader: &str, absent: Vec<u32>, told: crate::readers::Waiting) -> Self {
        Self {
            began: SystemTime::now(),
            since: Instant::now(),
            at: told.at,
            reader: reader.to_owned(),
            absent,
            profile: told.profile,
            cause: told.cause,
        }
    }

    pub(crate) fn waited(&self) -> Duration {
        self.since.elapsed()
    }
}

impl Diary {
    /// A piece came.
    pub(crate) fn arrived(&self, piece: u32, from: From, address: Option<SocketAddr>) {
        let mut arrivals = self.arrivals.lock().unwrap_or_else(PoisonError::into_inner);
        if arrivals.len() >= ARRIVALS_KEPT {
            arrivals.pop_front();
        }
        arrivals.push_back(Arrival { piece, from, address });
    }

    /// A read waits no longer: it has its bytes, or was given up.
    pub(crate) fn ended(&self, wait: &Wait, served: bool) -> Stall {
        let arrivals = self.arrivals.lock().unwrap_or_else(PoisonError::into_inner);
        let last = arrivals.iter().rev().find(|arrival| wait.absent.contains(&arrival.piece)).copied();
        drop(arrivals);
        let last = last.filter(|_| served);
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let stall = Stall {
            began_unix_ms: unix_ms(wait.began),
            at_ms: ms(wait.at),
            reader: wait.reader.clone(),
            piece: last.map_or_else(|| wait.absent.first().copied().unwrap_or(0), |last| last.piece),
            waited_ms: ms(wait.waited()),
            source: last.map(|last| source(last.from).to_owned()),
            from: last.and_then(|last| last.address).map(|address| address.to_string()),
            profile: wait.profile.clone(),
            why: wait.cause,
        };
        let mut stalls = self.stalls.lock().unwrap_or_else(PoisonError::into_inner);
        if stalls.len() >= STALLS_KEPT {
            stalls.pop_front();
        }
        stalls.push_back(stall.clone());
        stall
    }

    /// The last stalls, oldest first.
    pub(crate) fn stalls(&self) -> Vec<Stall> {
        self.stalls.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

/// How a source is written.
pub(crate) fn source(from: From) -> &'static str {
    match from {
        From::Origin => "origin",
        From::Peer => "peer",
        From::WebSeed => "web_seed",
    }
}
