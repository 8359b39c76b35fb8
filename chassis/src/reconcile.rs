//! The reconcile loop: started, then again whenever it is hinted at, whenever its own status asks for it, and at least
//! every [`Reconciler::RESYNC`]. What triggered a pass is never an input to it.
//!
//! A reconciler observes what is, lets a pure planner make a plan, applies it without choosing anything, and returns a
//! status. It does not fail: what failed is in the status, and the next pass repairs it.

use std::future::Future;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// One loop's content.
pub trait Reconciler: Send + 'static {
    /// What a pass reports.
    type Status: Clone + Send + Sync + 'static;
    /// For logs.
    const NAME: &'static str;
    /// Longest time between two passes.
    const RESYNC: Duration;

    /// One pass. Observes, plans, applies. `retry_after` of the answer asks for another pass sooner than
    /// [`Self::RESYNC`].
    fn reconcile(&mut self) -> impl Future<Output = Pass<Self::Status>> + Send;
}

/// What a pass reports.
#[derive(Debug, Clone)]
pub struct Pass<Status> {
    /// For those who watch.
    pub status: Status,
    /// Something failed or is under way: come back after this.
    pub retry_after: Option<Duration>,
}

/// Hold of a running loop.
#[derive(Debug)]
pub struct Handle<Status> {
    hint: std::sync::Arc<Notify>,
    /// The status of the last pass; none before the first ends. Counts passes.
    pub status: watch::Receiver<(u64, Option<Status>)>,
    /// Ends when the shutdown token is cancelled, after the pass under way.
    pub task: JoinHandle<()>,
}

impl<Status: Clone> Handle<Status> {
    /// A cloneable end that asks for a pass.
    #[must_use]
    pub fn hint(&self) -> Hint {
        Hint(std::sync::Arc::clone(&self.hint))
    }
}

/// Asks a loop for a pass soon. Many hints before a pass begins are one.
#[derive(Debug, Clone)]
pub struct Hint(std::sync::Arc<Notify>);

impl Hint {
    /// Asks.
    pub fn now(&self) {
        self.0.notify_one();
    }
}

/// Starts a loop. Its first pass begins at once.
pub fn spawn<R: Reconciler>(mut reconciler: R, shutdown: CancellationToken) -> Handle<R::Status> {
    let hint = std::sync::Arc::new(Notify::new());
    let (sender, status) = watch::channel((0, None));
    let wake = std::sync::Arc::clone(&hint);
    let task = tokio::spawn(async move {
        let mut passes = 0;
        while !shutdown.is_cancelled() {
            let pass = reconciler.reconcile().await;
            passes += 1;
            sender.send_replace((passes, Some(pass.status)));
            let pause = pass.retry_after.map_or(R::RESYNC, |after| after.min(R::RESYNC));
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = wake.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
        tracing::debug!(reconciler = R::NAME, passes, "loop ended");
    });
    Handle { hint, status, task }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Counting(u32);
    impl Reconciler for Counting {
        type Status = u32;
        const NAME: &'static str = "counting";
        const RESYNC: Duration = Duration::from_secs(3600);
        async fn reconcile(&mut self) -> Pass<u32> {
            self.0 += 1;
            Pass { status: self.0, retry_after: (self.0 == 1).then_some(Duration::from_millis(1)) }
        }
    }

    #[tokio::test]
    async fn runs_at_start_on_retry_and_on_a_hint_and_ends_on_shutdown() {
        let shutdown = CancellationToken::new();
        let mut handle = spawn(Counting(0), shutdown.clone());
        handle.status.wait_for(|(_, status)| *status == Some(2)).await.unwrap();
        handle.hint().now();
        handle.status.wait_for(|(_, status)| *status == Some(3)).await.unwrap();
        shutdown.cancel();
        handle.task.await.unwrap();
    }
}
