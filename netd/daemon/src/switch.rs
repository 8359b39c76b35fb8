//! The loop: one task owns the kernel and the document, and does one thing at a time.
//!
//! A document, a change in the kernel that is none of ours, or the timer each start the same pass: observe, plan, apply,
//! observe again. A change of the document starts the same pass within its [`Scope`]: only the links of the networks it
//! touches are looked at, and their rules are known from the last pass, as long as nobody said that our tables were
//! changed since. Whatever does not fit that takes the whole pass. A document is stored before it is applied, and
//! answered after.

use crate::config::Config;
use crate::store::{Store, StoreError};
use netd_api::{Change, Desired, Flow, Network, PlanReport, Question, Status};
use netd_kernel::{Applied, Changes, Kernel, News, ObserveError, OpenError};
use netd_plan::{
    CapturePoint, Document, Explained, Host, Invalid, Observed, ObservedRules, Plan, Rules, Scope, Step,
    Target, Unanswerable, capture_points, explain, flows, mirrors_status, networks_status, plan,
    watchers_status,
};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use types::Generation;

/// Longest time between two passes.
const RESYNC: Duration = Duration::from_secs(30);
/// After a failure.
const RETRY: Duration = Duration::from_secs(2);
/// Changes come in bursts, our own among them; one pass looks at all of them.
const SETTLE: Duration = Duration::from_millis(50);
/// Requests that may wait.
const REQUESTS_MAX: usize = 64;

pub(crate) type Requests = mpsc::Sender<Request>;
type Answer<T> = oneshot::Sender<Result<T, Refusal>>;

/// What the socket asks.
#[derive(Debug)]
pub(crate) enum Request {
    Put(Desired, Answer<Status>),
    Change(Change, Answer<Status>),
    Plan(Desired, Answer<PlanReport>),
    Status(Answer<Status>),
    Purge(Answer<Status>),
    Explain(Question, Answer<Explained>),
    CapturePoints(Vec<String>, Answer<Vec<CapturePoint>>),
    Flows(Answer<Vec<Flow>>),
}

/// Why a request was refused. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("generation {given} is older than {held}, which netd holds; send a newer document")]
    Stale { given: Generation, held: Generation },
    #[error("the change is of generation {from}, but netd holds {held}; send the whole document")]
    Other { from: Generation, held: Generation },
    #[error("generation {0} is held with other content; number every change")]
    Reused(Generation),
    #[error(transparent)]
    Invalid(#[from] Invalid),
    #[error(transparent)]
    Unanswerable(#[from] Unanswerable),
    #[error("the document could not be stored")]
    Store(#[from] StoreError),
    #[error("the kernel could not be read")]
    Observe(#[from] ObserveError),
}

/// Why netd cannot start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Kernel(#[from] OpenError),
}

/// One host's virtual switches.
#[derive(Debug)]
pub(crate) struct Switch {
    kernel: Kernel,
    changes: Changes,
    store: Store,
    host: Host,
    /// None before the first: then netd touches nothing, whatever it finds.
    document: Option<Document>,
    /// Why the stored document is none for this host any more.
    invalid: Option<Invalid>,
    /// Of the document. None until it is needed, and while the host does not grant what the document asks for.
    target: Option<Target>,
    /// The last pass found or left everything as wanted, but for what it refuses.
    settled: bool,
    /// When everything is looked at again.
    due: Instant,
    /// Of the last pass that changed something.
    took: Duration,
    steps: u32,
    failures: Vec<String>,
    /// Of the last pass over everything.
    conflicts: Vec<String>,
}

impl Switch {
    /// Takes up the stored document.
    pub(crate) fn open(config: &Config) -> Result<Self, StartError> {
        let mut store = Store::open(&config.state_dir)?;
        let desired = store.read()?;
        let host = config.host();
        let kernel = Kernel::open()?.with_routers(config.router_folders());
        // A grant withdrawn since the document was stored refuses the whole of it; what is in place stays, closed.
        let (document, invalid) =
            match desired.map(|desired| (Document::new(desired.clone(), &host), desired)) {
                None => (None, None),
                Some((Ok(document), _)) => (Some(document), None),
                Some((Err(invalid), desired)) => (Some(Document::unchecked(desired)), Some(invalid)),
            };
        Ok(Self {
            changes: Changes::open(&kernel)?,
            kernel,
            store,
            host,
            document,
            invalid,
            target: None,
            settled: false,
            due: Instant::now(),
            took: Duration::ZERO,
            steps: 0,
            failures: Vec::new(),
            conflicts: Vec::new(),
        })
    }

    /// Starts the loop.
    pub(crate) fn spawn(self, shutdown: CancellationToken) -> (Requests, JoinHandle<()>) {
        let (sender, requests) = mpsc::channel(REQUESTS_MAX);
        (sender, tokio::spawn(self.run(requests, shutdown)))
    }

    async fn run(mut self, mut requests: mpsc::Receiver<Request>, shutdown: CancellationToken) {
        self.pass_logged().await;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                request = requests.recv() => match request {
                    Some(request) => self.serve(request).await,
                    None => return,
                },
                news = self.changes.next() => {
                    if !self.expects(&news) {
                        self.settle().await;
                        self.pass_logged().await;
                    }
                }
                () = self.kernel.server_died() => self.pass_logged().await,
                () = tokio::time::sleep_until(self.due.into()) => {
                    if !self.glance().await {
                        self.pass_logged().await;
                    }
                }
            }
        }
    }

    /// Takes the rest of a burst.
    async fn settle(&mut self) {
        let burst = async {
            loop {
                self.changes.next().await;
            }
        };
        let _ = tokio::time::timeout(SETTLE, burst).await;
    }

    /// Whether news leaves everything as wanted.
    fn expects(&self, news: &News) -> bool {
        let Some(target) = &self.target else { return self.document.is_none() };
        let as_wanted = || news.links.iter().all(|(name, link)| target.expects(name, link.as_ref()));
        !news.missed && !news.renamed && news.rules == 0 && as_wanted()
    }

    fn desired(&self) -> Option<&Desired> {
        self.document.as_ref().map(Document::desired)
    }

    fn generation(&self) -> Generation {
        self.desired().map_or(Generation(0), |desired| desired.generation)
    }

    async fn serve(&mut self, request: Request) {
        // A caller that has gone away does not need the answer.
        match request {
            Request::Put(desired, answer) => drop(answer.send(self.put(desired).await)),
            Request::Change(change, answer) => drop(answer.send(self.change(&change).await)),
            Request::Plan(desired, answer) => drop(answer.send(self.preview(&desired).await)),
            Request::Status(answer) => drop(answer.send(self.status().await)),
            Request::Purge(answer) => drop(answer.send(self.purge().await)),
            Request::Explain(question, answer) => drop(answer.send(self.explain(&question).await)),
            Request::CapturePoints(of, answer) => drop(answer.send(self.capture_points(&of))),
            Request::Flows(answer) => drop(answer.send(self.flows().await)),
        }
    }

    async fn put(&mut self, desired: Desired) -> Result<Status, Refusal> {
        if self.invalid.is_some() || !self.desired().is_some_and(|held| is_same(held, &desired)) {
            let document = self.admit(desired)?;
            let desired = document.desired();
            self.store.write(desired)?;
            tracing::info!(generation = %desired.generation, networks = desired.networks.len(), "taken up");
            self.hold(Some(document));
        }
        self.pass().await
    }

    fn admit(&self, desired: Desired) -> Result<Document, Refusal> {
        let document = Document::new(desired, &self.host)?;
        let desired = document.desired();
        match self.desired() {
            Some(held) if desired.generation < held.generation => {
                Err(Refusal::Stale { given: desired.generation, held: held.generation })
            }
            Some(held) if desired.generation == held.generation && !is_same(held, desired) => {
                Err(Refusal::Reused(desired.generation))
            }
            _ => Ok(document),
        }
    }

    fn hold(&mut self, document: Option<Document>) {
        self.document = document;
        self.invalid = None;
        self.target = None;
        self.settled = false;
    }

    async fn change(&mut self, change: &Change) -> Result<Status, Refusal> {
        let held = self.generation();
        let document = match &mut self.document {
            Some(document) if self.invalid.is_none() && change.from == held => document,
            _ => return Err(Refusal::Other { from: change.from, held }),
        };
        if change.generation <= held {
            return Err(Refusal::Stale { given: change.generation, held });
        }
        let scope = document.change(change, &self.host)?;
        if let Err(error) = self.store.change(change) {
            let stored = self.store.read()?.map(|desired| Document::new(desired, &self.host)).transpose()?;
            self.hold(stored);
            return Err(error.into());
        }
        // What was told until now is about the document of until now.
        let news = self.changes.waiting();
        let is_known = self.settled && self.expects(&news);
        let within = self.replace_target(&scope)?.filter(|_| is_known);
        if let Some((before, after)) = within
            && let Some(status) = self.pass_within(&change.put, &before, &after).await?
        {
            return Ok(status);
        }
        let mut status = self.pass().await?;
        let put = |id: &str| change.put.iter().any(|network| network.id == id);
        status.networks.retain(|network| put(&network.id));
        Ok(status)
    }

    /// What the planner works towards, brought up to date by a change; its part within the scope, before and after, if
    /// nothing else has a part in it.
    fn replace_target(&mut self, scope: &Scope) -> Result<Option<(Target, Target)>, Refusal> {
        let Some(target) = self.target.as_mut().filter(|_| scope.alone) else {
            self.target = None;
            return Ok(None);
        };
        let (before, after) = (scope.target_before(&self.host)?, scope.target(&self.host)?);
        target.replace(&before, after.clone());
        Ok(Some((before, after)))
    }

    async fn preview(&self, desired: &Desired) -> Result<PlanReport, Refusal> {
        let target = self.admit(desired.clone())?.target(&self.host)?;
        let plan = plan(&target, &self.kernel.observe().await?);
        Ok(PlanReport { steps: plan.steps.iter().map(Step::to_string).collect() })
    }

    async fn explain(&self, question: &Question) -> Result<Explained, Refusal> {
        let nothing = Desired::default();
        let desired = self.desired().unwrap_or(&nothing);
        let target = Target::new(desired, &self.host)?;
        let networks = networks_status(desired, &self.host, &self.kernel.observe().await?);
        Ok(explain(desired, &target, &networks, question)?)
    }

    async fn flows(&self) -> Result<Vec<Flow>, Refusal> {
        let Some(desired) = self.desired() else { return Ok(Vec::new()) };
        let heard = self.kernel.conversations().await.map_err(ObserveError::Rules)?;
        Ok(flows(desired, heard))
    }

    fn capture_points(&self, of: &[String]) -> Result<Vec<CapturePoint>, Refusal> {
        let nothing = Desired::default();
        Ok(capture_points(self.desired().unwrap_or(&nothing), of)?)
    }

    /// Removes everything, then forgets. Killed in between, the empty document goes on removing.
    pub(crate) async fn purge(&mut self) -> Result<Status, Refusal> {
        let empty = Desired::default();
        self.store.write(&empty)?;
        self.hold(Some(Document::unchecked(empty)));
        let status = self.pass().await?;
        if status.failures.is_empty() {
            self.store.forget()?;
            self.hold(None);
        }
        Ok(status)
    }

    async fn pass_logged(&mut self) {
        if let Err(error) = self.pass().await {
            tracing::error!(error = %chassis::telemetry::chain(&error), "the pass failed");
            self.failures = vec![error.to_string()];
            self.settled = false;
            self.due = Instant::now() + RETRY;
        }
    }

    /// Looks at everything but the rules, which the kernel says are as they were left; whether all is as wanted.
    async fn glance(&mut self) -> bool {
        let is_quiet = self.settled && self.failures.is_empty();
        let Some(target) = self.target.as_mut().filter(|target| is_quiet && target.flows.is_empty()) else {
            return false;
        };
        if !self.kernel.rules_are_as_left().await.unwrap_or(false) {
            return false;
        }
        let begin = Instant::now();
        let Ok(mut observed) = self.kernel.observe_but_rules().await else { return false };
        // Equal on both sides, whatever they are.
        let rules = target.rules.take();
        target.rules = rules.as_ref().map(|_| Rules::default());
        observed.rules = intact(target);
        let found = plan(target, &observed);
        target.rules = rules;
        if !found.steps.is_empty() || !found.refusals.is_empty() {
            return false;
        }
        metrics::histogram!("netd_glance_seconds").record(begin.elapsed().as_secs_f64());
        self.conflicts = found.conflicts;
        self.due = begin + RESYNC;
        true
    }

    /// Observes, plans, applies, observes: everything.
    async fn pass(&mut self) -> Result<Status, Refusal> {
        let begin = Instant::now();
        metrics::counter!("netd_passes_total", "scope" => "whole").increment(1);
        // What was told so far is seen now.
        self.changes.waiting();
        let mut observed = self.kernel.observe().await?;
        self.due = begin + RESYNC;
        let Some(target) = self.take_target()? else {
            self.failures.clear();
            return Ok(self.report(&observed, &Plan::default()));
        };
        let mut rest = plan(&target, &observed);
        self.failures.clear();
        if !rest.steps.is_empty() {
            let applied = self.kernel.apply(&rest).await;
            self.changes.waiting();
            observed = self.kernel.observe().await?;
            rest = plan(&target, &observed);
            self.note(&applied, begin);
        }
        self.settled = rest.steps.is_empty();
        self.target = Some(target);
        self.failures.extend(rest.refusals.iter().cloned());
        self.conflicts.clone_from(&rest.conflicts);
        if !self.failures.is_empty() {
            self.due = Instant::now() + RETRY;
        }
        for failure in &self.failures {
            tracing::warn!(failure, "not done");
        }
        Ok(self.report(&observed, &rest))
    }

    fn take_target(&mut self) -> Result<Option<Target>, Invalid> {
        if let Some(invalid) = &self.invalid {
            return Err(invalid.clone());
        }
        match (self.target.take(), &self.document) {
            (Some(target), _) => Ok(Some(target)),
            (None, Some(document)) => document.target(&self.host).map(Some),
            (None, None) => Ok(None),
        }
    }

    /// The same of a change: looks at the links it has an effect on, and knows their rules. No status if something did
    /// not turn out as planned, or others did something meanwhile: that takes the whole pass.
    async fn pass_within(
        &mut self,
        put: &[Network],
        before: &Target,
        after: &Target,
    ) -> Result<Option<Status>, Refusal> {
        let begin = Instant::now();
        metrics::counter!("netd_passes_total", "scope" => "change").increment(1);
        let mut names = before.link_names();
        names.extend(after.link_names());
        let mut observed = self.kernel.observe_named(&names)?;
        observed.rules = intact(before);
        let found = plan(after, &observed);
        let applied = self.kernel.apply(&found).await;
        let mut news = self.changes.waiting();
        let amended = found.steps.iter().filter(|step| matches!(step, Step::AmendRules { .. })).count();
        if u32::try_from(amended) == Ok(news.rules) {
            news.rules = 0;
        }
        names.retain(|name| news.links.contains_key(name));
        observed.links.retain(|name, _| !names.contains(name));
        let changed = self.kernel.observe_named(&names)?;
        let observed = Observed {
            links: observed.links.into_iter().chain(changed.links).collect(),
            rules: intact(after),
            ..changed
        };
        let rest = plan(after, &observed);
        if !applied.failures.is_empty() || !rest.steps.is_empty() || !self.expects(&news) {
            return Ok(None);
        }
        self.note(&applied, begin);
        for refusal in &rest.refusals {
            if !self.failures.contains(refusal) {
                self.failures.push(refusal.clone());
                self.due = Instant::now() + RETRY;
            }
        }
        let put = Desired { networks: put.to_vec(), ..Desired::default() };
        let networks = networks_status(&put, &self.host, &observed);
        let conflicts = self.conflicts.clone();
        Ok(Some(Status { networks, conflicts, ..self.outcome(&rest) }))
    }

    /// Remembers what a pass did.
    fn note(&mut self, applied: &Applied, begin: Instant) {
        self.took = begin.elapsed();
        self.steps = applied.done;
        for (step, error) in &applied.failures {
            self.failures.push(format!("{step}: {}", chassis::telemetry::chain(error)));
        }
        metrics::counter!("netd_steps_total").increment(u64::from(applied.done));
        metrics::histogram!("netd_pass_seconds").record(self.took.as_secs_f64());
        let took_ms = self.took.as_millis();
        tracing::info!(steps = applied.done, failures = self.failures.len(), took_ms, "changed");
    }

    async fn status(&mut self) -> Result<Status, Refusal> {
        let observed = self.kernel.observe().await?;
        let target = self.take_target()?;
        let rest = target.as_ref().map(|target| plan(target, &observed)).unwrap_or_default();
        self.target = target;
        Ok(self.report(&observed, &rest))
    }

    fn report(&self, observed: &Observed, rest: &Plan) -> Status {
        let Some(desired) = self.desired() else { return self.outcome(rest) };
        let mirrors = self.target.as_ref().map(|target| mirrors_status(desired, target, observed));
        Status {
            networks: networks_status(desired, &self.host, observed),
            watchers: watchers_status(desired, observed),
            mirrors: mirrors.unwrap_or_default(),
            ..self.outcome(rest)
        }
    }

    fn outcome(&self, rest: &Plan) -> Status {
        Status {
            generation: self.generation(),
            converged: rest.steps.is_empty() && rest.refusals.is_empty(),
            // Rounded up: a pass that did something took time.
            took_ms: u64::try_from(self.took.as_micros().div_ceil(1000)).unwrap_or(u64::MAX),
            steps: self.steps,
            failures: self.failures.clone(),
            conflicts: rest.conflicts.clone(),
            ..Status::default()
        }
    }
}

/// Whether two documents say the same, in whatever order: changes add new networks at the end.
fn is_same(held: &Desired, given: &Desired) -> bool {
    fn sorted(desired: &Desired) -> Vec<&Network> {
        let mut networks: Vec<_> = desired.networks.iter().collect();
        networks.sort_by(|a, b| a.id.cmp(&b.id));
        networks
    }
    held == given
        || (held.generation == given.generation
            && (&held.watchers, &held.mirrors) == (&given.watchers, &given.mirrors)
            && sorted(held) == sorted(given))
}

/// The rules, known to be what a target says.
fn intact(target: &Target) -> ObservedRules {
    target.rules.clone().map_or(ObservedRules::Absent, ObservedRules::Intact)
}
