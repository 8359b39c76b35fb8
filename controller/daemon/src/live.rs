//! What is known of hosts right now: which are connected, and what they last said. Nothing in here outlives the
//! process; every agent says it again within a second.

use controller_api::agent::{HostStatus, InstanceStatus, ToAgent};
use controller_api::stream::StreamReport;
use netd_api::{Capture, Explanation, Flow, Question};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{mpsc, oneshot};
use types::{HostName, InstanceId};

/// Messages that may wait for one agent.
const OUTBOX: usize = 256;
/// Console chunks that may wait for one reader.
const CONSOLE_BUFFER: usize = 256;

/// To one agent.
#[derive(Debug)]
pub(crate) enum Outgoing {
    Message(ToAgent),
    /// Bytes for a console; none closes it.
    Console(u32, Option<Vec<u8>>),
}

/// From a console.
#[derive(Debug)]
pub(crate) enum ConsoleEvent {
    Bytes(Vec<u8>),
    Closed(String),
}

/// What a host last said.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    pub(crate) online: bool,
    pub(crate) seen_ms: u64,
    pub(crate) status: Option<Arc<HostStatus>>,
    pub(crate) instances: Arc<HashMap<InstanceId, InstanceStatus>>,
}

/// Where an answer goes: what was asked for, or why there is none.
type Asker<T> = oneshot::Sender<Result<T, String>>;

#[derive(Debug)]
struct Session {
    id: u64,
    outbox: mpsc::Sender<Outgoing>,
    logs: HashMap<u32, Asker<String>>,
    streams: HashMap<u32, Asker<StreamReport>>,
    explanations: HashMap<u32, Asker<Explanation>>,
    flows: HashMap<u32, Asker<Vec<Flow>>>,
    /// Consoles, and captures, which are read like one.
    consoles: HashMap<u32, mpsc::Sender<ConsoleEvent>>,
}

#[derive(Debug, Default)]
struct Inner {
    sessions: HashMap<HostName, Session>,
    seen: BTreeMap<HostName, Seen>,
}

/// All hosts.
#[derive(Debug, Default)]
pub(crate) struct Live {
    inner: Mutex<Inner>,
    sessions: AtomicU64,
    streams: AtomicU32,
}

impl Live {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new connection takes the place of an older one of the same host.
    pub(crate) fn connect(&self, host: &HostName, now_ms: u64) -> (u64, mpsc::Receiver<Outgoing>) {
        let (outbox, inbox) = mpsc::channel(OUTBOX);
        let id = self.sessions.fetch_add(1, Ordering::Relaxed);
        let mut inner = self.inner();
        let session = Session {
            id,
            outbox,
            logs: HashMap::new(),
            streams: HashMap::new(),
            explanations: HashMap::new(),
            flows: HashMap::new(),
            consoles: HashMap::new(),
        };
        inner.sessions.insert(host.clone(), session);
        let seen = inner.seen.entry(host.clone()).or_default();
        (seen.online, seen.seen_ms) = (true, now_ms);
        (id, inbox)
    }

    /// Ends a connection; true if the host is now without one.
    pub(crate) fn disconnect(&self, host: &HostName, id: u64) -> bool {
        let mut inner = self.inner();
        if inner.sessions.get(host).is_none_or(|session| session.id != id) {
            return false;
        }
        inner.sessions.remove(host);
        if let Some(seen) = inner.seen.get_mut(host) {
            seen.online = false;
        }
        true
    }

    /// Takes up a status; says which instances are otherwise than before, and whether the host is.
    pub(crate) fn report(&self, host: &HostName, status: HostStatus, now_ms: u64) -> (Vec<InstanceId>, bool) {
        let instances: HashMap<_, _> =
            status.instances.iter().map(|instance| (instance.id.clone(), instance.clone())).collect();
        let mut inner = self.inner();
        let seen = inner.seen.entry(host.clone()).or_default();
        let mut changed: Vec<InstanceId> = instances
            .iter()
            .filter(|(id, instance)| seen.instances.get(*id) != Some(instance))
            .map(|(id, _)| id.clone())
            .collect();
        changed.extend(seen.instances.keys().filter(|id| !instances.contains_key(*id)).cloned());
        let otherwise = seen.status.as_ref().is_none_or(|old| {
            old.converged != status.converged
                || old.problems != status.problems
                || old.generation != status.generation
                || old.streamer_up != status.streamer_up
                || old.captures != status.captures
        });
        seen.seen_ms = now_ms;
        seen.instances = Arc::new(instances);
        seen.status = Some(Arc::new(status));
        (changed, otherwise)
    }

    /// A host was heard, whatever it said.
    pub(crate) fn heard(&self, host: &HostName, now_ms: u64) {
        if let Some(seen) = self.inner().seen.get_mut(host) {
            seen.seen_ms = now_ms;
        }
    }

    /// A host's connection is not to be believed any more: it has to dial again.
    pub(crate) fn cut(&self, host: &HostName) {
        let mut inner = self.inner();
        inner.sessions.remove(host);
        if let Some(seen) = inner.seen.get_mut(host) {
            seen.online = false;
        }
    }

    /// A host was removed: its connection ends.
    pub(crate) fn forget(&self, host: &HostName) {
        let mut inner = self.inner();
        inner.sessions.remove(host);
        inner.seen.remove(host);
    }

    pub(crate) fn seen(&self, host: &HostName) -> Seen {
        self.inner().seen.get(host).cloned().unwrap_or_default()
    }

    pub(crate) fn online(&self) -> BTreeSet<HostName> {
        self.inner().seen.iter().filter(|(_, seen)| seen.online).map(|(name, _)| name.clone()).collect()
    }

    pub(crate) fn statuses(&self) -> BTreeMap<HostName, HostStatus> {
        let inner = self.inner();
        inner
            .seen
            .iter()
            .filter_map(|(name, seen)| Some((name.clone(), HostStatus::clone(seen.status.as_ref()?))))
            .collect()
    }

    fn send(inner: &Inner, host: &HostName, message: Outgoing) -> Result<(), String> {
        let session = inner.sessions.get(host).ok_or_else(|| format!("host {host} is offline"))?;
        session.outbox.try_send(message).map_err(|_| format!("host {host} does not take messages"))
    }

    /// Sends a request that is answered once.
    fn ask<T>(
        &self,
        host: &HostName,
        message: impl FnOnce(u32) -> ToAgent,
        askers: fn(&mut Session) -> &mut HashMap<u32, Asker<T>>,
    ) -> Result<oneshot::Receiver<Result<T, String>>, String> {
        let request = self.streams.fetch_add(1, Ordering::Relaxed);
        let mut inner = self.inner();
        Self::send(&inner, host, Outgoing::Message(message(request)))?;
        let (answer, waiting) = oneshot::channel();
        if let Some(session) = inner.sessions.get_mut(host) {
            let askers = askers(session);
            askers.retain(|_, asker| !asker.is_closed());
            askers.insert(request, answer);
        }
        Ok(waiting)
    }

    fn answer<T>(
        &self,
        host: &HostName,
        request: u32,
        answer: Result<T, String>,
        askers: fn(&mut Session) -> &mut HashMap<u32, Asker<T>>,
    ) {
        let mut inner = self.inner();
        let asker = inner.sessions.get_mut(host).and_then(|session| askers(session).remove(&request));
        if let Some(asker) = asker {
            // The asker may have given up.
            let _ = asker.send(answer);
        }
    }

    /// Asks for the end of a serial log.
    pub(crate) fn log_tail(
        &self,
        host: &HostName,
        instance: &InstanceId,
        bytes_max: u32,
    ) -> Result<oneshot::Receiver<Result<String, String>>, String> {
        let instance = instance.clone();
        let message = |request| ToAgent::LogTail { request, instance, bytes_max };
        self.ask(host, message, |session| &mut session.logs)
    }

    pub(crate) fn log_answer(&self, host: &HostName, request: u32, answer: Result<String, String>) {
        self.answer(host, request, answer, |session| &mut session.logs);
    }

    /// Asks what an instance's reads waited for.
    pub(crate) fn stream_report(
        &self,
        host: &HostName,
        instance: &InstanceId,
    ) -> Result<oneshot::Receiver<Result<StreamReport, String>>, String> {
        let instance = instance.clone();
        let message = |request| ToAgent::StreamReport { request, instance };
        self.ask(host, message, |session| &mut session.streams)
    }

    pub(crate) fn stream_answer(&self, host: &HostName, request: u32, answer: Result<StreamReport, String>) {
        self.answer(host, request, answer, |session| &mut session.streams);
    }

    /// Asks whether a connection would be let through.
    pub(crate) fn explain(
        &self,
        host: &HostName,
        question: Question,
    ) -> Result<oneshot::Receiver<Result<Explanation, String>>, String> {
        let question = Box::new(question);
        let message = |request| ToAgent::Explain { request, question };
        self.ask(host, message, |session| &mut session.explanations)
    }

    pub(crate) fn explanation(&self, host: &HostName, request: u32, answer: Result<Explanation, String>) {
        self.answer(host, request, answer, |session| &mut session.explanations);
    }

    /// Asks who speaks with whom.
    pub(crate) fn flows(
        &self,
        host: &HostName,
    ) -> Result<oneshot::Receiver<Result<Vec<Flow>, String>>, String> {
        self.ask(host, |request| ToAgent::Flows { request }, |session| &mut session.flows)
    }

    pub(crate) fn flows_answer(&self, host: &HostName, request: u32, answer: Result<Vec<Flow>, String>) {
        self.answer(host, request, answer, |session| &mut session.flows);
    }

    /// Opens a stream of frames, to be read and closed as a console's.
    pub(crate) fn capture_open(
        &self,
        host: &HostName,
        capture: Capture,
    ) -> Result<(u32, mpsc::Receiver<ConsoleEvent>), String> {
        self.open(host, |stream| ToAgent::CaptureOpen { stream, capture })
    }

    /// Opens a console.
    pub(crate) fn console_open(
        &self,
        host: &HostName,
        instance: &InstanceId,
    ) -> Result<(u32, mpsc::Receiver<ConsoleEvent>), String> {
        let instance = instance.clone();
        self.open(host, |stream| ToAgent::ConsoleOpen { stream, instance })
    }

    fn open(
        &self,
        host: &HostName,
        message: impl FnOnce(u32) -> ToAgent,
    ) -> Result<(u32, mpsc::Receiver<ConsoleEvent>), String> {
        let stream = self.streams.fetch_add(1, Ordering::Relaxed);
        let mut inner = self.inner();
        Self::send(&inner, host, Outgoing::Message(message(stream)))?;
        let (events, receiver) = mpsc::channel(CONSOLE_BUFFER);
        if let Some(session) = inner.sessions.get_mut(host) {
            session.consoles.insert(stream, events);
        }
        Ok((stream, receiver))
    }

    /// Bytes to a console; none closes it.
    pub(crate) fn console_send(
        &self,
        host: &HostName,
        stream: u32,
        bytes: Option<Vec<u8>>,
    ) -> Result<(), String> {
        let mut inner = self.inner();
        let ends = bytes.is_none();
        let sent = Self::send(&inner, host, Outgoing::Console(stream, bytes));
        if ends && let Some(session) = inner.sessions.get_mut(host) {
            session.consoles.remove(&stream);
        }
        sent
    }

    /// Bytes from a console. A reader that does not keep up is cut off, so that it cannot hold up the host's channel.
    pub(crate) fn console_event(&self, host: &HostName, stream: u32, event: ConsoleEvent) {
        let mut inner = self.inner();
        let Some(session) = inner.sessions.get_mut(host) else { return };
        let ends = matches!(event, ConsoleEvent::Closed(_));
        let lost = session.consoles.get(&stream).is_some_and(|console| console.try_send(event).is_err());
        if ends || lost {
            session.consoles.remove(&stream);
        }
    }
}
