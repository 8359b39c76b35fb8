//! The loop: one task owns the kernel and the document, and does one thing at a time.
//!
//! A request, a change in the kernel, or the timer each start the same pass: observe, plan, apply, observe again.
//! A document is stored before it is applied, and answered after.

use crate::config::Config;
use crate::store::{Store, StoreError};
use netd_api::{Desired, PlanReport, Question, Status};
use netd_kernel::{Changes, Kernel, ObserveError, OpenError};
use netd_plan::{
    CapturePoint, Explained, Host, Invalid, Observed, Plan, Step, Target, Unanswerable, capture_points,
    explain, networks_status, plan,
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
    Plan(Desired, Answer<PlanReport>),
    Status(Answer<Status>),
    Purge(Answer<Status>),
    Explain(Question, Answer<Explained>),
    CapturePoints(Vec<String>, Answer<Vec<CapturePoint>>),
}

/// Why a request was refused. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("generation {given} is older than {held}, which netd holds; send a newer document")]
    Stale { given: Generation, held: Generation },
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
    desired: Option<Desired>,
    /// Of the last pass that changed something.
    took: Duration,
    steps: u32,
    failures: Vec<String>,
}

impl Switch {
    /// Takes up the stored document.
    pub(crate) fn open(config: &Config) -> Result<Self, StartError> {
        let store = Store::open(&config.state_dir)?;
        let desired = store.read()?;
        Ok(Self {
            kernel: Kernel::open()?,
            changes: Changes::open()?,
            store,
            host: config.host(),
            desired,
            took: Duration::ZERO,
            steps: 0,
            failures: Vec::new(),
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
            let pause = if self.failures.is_empty() { RESYNC } else { RETRY };
            tokio::select! {
                () = shutdown.cancelled() => return,
                request = requests.recv() => match request {
                    Some(request) => self.serve(request).await,
                    None => return,
                },
                () = self.changes.next() => {
                    self.settle().await;
                    self.pass_logged().await;
                }
                () = tokio::time::sleep(pause) => self.pass_logged().await,
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

    async fn serve(&mut self, request: Request) {
        // A caller that has gone away does not need the answer.
        match request {
            Request::Put(desired, answer) => drop(answer.send(self.put(desired).await)),
            Request::Plan(desired, answer) => drop(answer.send(self.preview(&desired).await)),
            Request::Status(answer) => drop(answer.send(self.status().await)),
            Request::Purge(answer) => drop(answer.send(self.purge().await)),
            Request::Explain(question, answer) => drop(answer.send(self.explain(&question).await)),
            Request::CapturePoints(of, answer) => drop(answer.send(self.capture_points(&of))),
        }
    }

    async fn put(&mut self, desired: Desired) -> Result<Status, Refusal> {
        self.admit(&desired)?;
        if self.desired.as_ref() != Some(&desired) {
            self.store.write(&desired)?;
            tracing::info!(generation = %desired.generation, networks = desired.networks.len(), "taken up");
            self.desired = Some(desired);
        }
        self.pass().await
    }

    fn admit(&self, desired: &Desired) -> Result<Target, Refusal> {
        let target = Target::new(desired, &self.host)?;
        match &self.desired {
            Some(held) if desired.generation < held.generation => {
                Err(Refusal::Stale { given: desired.generation, held: held.generation })
            }
            Some(held) if desired.generation == held.generation && desired != held => {
                Err(Refusal::Reused(desired.generation))
            }
            _ => Ok(target),
        }
    }

    async fn preview(&self, desired: &Desired) -> Result<PlanReport, Refusal> {
        let target = self.admit(desired)?;
        let plan = plan(&target, &self.kernel.observe().await?);
        Ok(PlanReport { steps: plan.steps.iter().map(Step::to_string).collect() })
    }

    async fn explain(&self, question: &Question) -> Result<Explained, Refusal> {
        let nothing = Desired::default();
        let desired = self.desired.as_ref().unwrap_or(&nothing);
        let target = Target::new(desired, &self.host)?;
        let networks = networks_status(desired, &self.host, &self.kernel.observe().await?);
        Ok(explain(desired, &target, &networks, question)?)
    }

    fn capture_points(&self, of: &[String]) -> Result<Vec<CapturePoint>, Refusal> {
        let nothing = Desired::default();
        Ok(capture_points(self.desired.as_ref().unwrap_or(&nothing), of)?)
    }

    /// Removes everything, then forgets. Killed in between, the empty document goes on removing.
    pub(crate) async fn purge(&mut self) -> Result<Status, Refusal> {
        let empty = Desired::default();
        self.store.write(&empty)?;
        self.desired = Some(empty);
        let status = self.pass().await?;
        if status.failures.is_empty() {
            self.store.forget()?;
            self.desired = None;
        }
        Ok(status)
    }

    async fn pass_logged(&mut self) {
        if let Err(error) = self.pass().await {
            tracing::error!(error = %chassis::telemetry::chain(&error), "the pass failed");
            self.failures = vec![error.to_string()];
        }
    }

    /// Observes, plans, applies, observes.
    async fn pass(&mut self) -> Result<Status, Refusal> {
        let begin = Instant::now();
        let observed = self.kernel.observe().await?;
        let Some(desired) = &self.desired else {
            self.failures.clear();
            return Ok(self.report(&observed, &Plan::default()));
        };
        // A grant withdrawn since the document was stored refuses the whole of it; what is in place stays, closed.
        let target = Target::new(desired, &self.host)?;
        let found = plan(&target, &observed);
        if found.steps.is_empty() {
            self.failures = found.refusals.clone();
            return Ok(self.report(&observed, &found));
        }
        let applied = self.kernel.apply(&found).await;
        let observed = self.kernel.observe().await?;
        let rest = plan(&target, &observed);
        self.took = begin.elapsed();
        self.steps = applied.done;
        self.failures = rest.refusals.clone();
        for (step, error) in &applied.failures {
            self.failures.push(format!("{step}: {}", chassis::telemetry::chain(error)));
        }
        metrics::counter!("netd_steps_total").increment(u64::from(applied.done));
        metrics::histogram!("netd_pass_seconds").record(self.took.as_secs_f64());
        let took_ms = self.took.as_millis();
        tracing::info!(steps = applied.done, failures = self.failures.len(), took_ms, "changed");
        for failure in &self.failures {
            tracing::warn!(failure, "not done");
        }
        Ok(self.report(&observed, &rest))
    }

    async fn status(&self) -> Result<Status, Refusal> {
        let observed = self.kernel.observe().await?;
        let rest = match &self.desired {
            Some(desired) => plan(&Target::new(desired, &self.host)?, &observed),
            None => Plan::default(),
        };
        Ok(self.report(&observed, &rest))
    }

    fn report(&self, observed: &Observed, rest: &Plan) -> Status {
        let networks =
            self.desired.as_ref().map(|d| networks_status(d, &self.host, observed)).unwrap_or_default();
        Status {
            generation: self.desired.as_ref().map_or(Generation(0), |d| d.generation),
            converged: rest.steps.is_empty() && rest.refusals.is_empty(),
            // Rounded up: a pass that did something took time.
            took_ms: u64::try_from(self.took.as_micros().div_ceil(1000)).unwrap_or(u64::MAX),
            steps: self.steps,
            failures: self.failures.clone(),
            conflicts: rest.conflicts.clone(),
            networks,
            watchers: Vec::new(),
            mirrors: Vec::new(),
        }
    }
}
