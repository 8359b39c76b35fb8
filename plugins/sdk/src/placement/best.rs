//! Ranking without sorting: of ten thousand hosts a handful is of use.

use super::{Choice, Placed, Rejection, Request, Verdict};
use crate::Reason;

/// The hosts with the highest scores so far, best first; of equals, the one with the lower index is better.
#[derive(Debug, Clone, PartialEq)]
pub struct Best {
    kept: Vec<(u32, f64)>,
    most: usize,
}

impl Best {
    /// Keeps at most as many as the request has use for.
    #[must_use]
    pub fn of(request: &Request) -> Self {
        let most = request.choices_max.max(1) as usize;
        Self { kept: Vec::with_capacity(most + 1), most }
    }

    /// Takes a host up, if it is among the best.
    #[inline]
    pub fn offer(&mut self, host: u32, score: f64) {
        if self.kept.len() == self.most
            && let Some(worst) = self.kept.last()
            && !better((host, score), *worst)
        {
            return;
        }
        self.insert(host, score);
    }

    #[cold]
    fn insert(&mut self, host: u32, score: f64) {
        let place = self.kept.iter().position(|kept| better((host, score), *kept));
        self.kept.insert(place.unwrap_or(self.kept.len()), (host, score));
        self.kept.truncate(self.most);
    }

    /// The verdict: these hosts, explained with `reasons_of`; without any, to ask again after `retry_after_ms`.
    /// Explaining comes last because it is what takes time.
    #[must_use]
    pub fn verdict(
        self,
        reasons_of: impl Fn(u32) -> Vec<Reason>,
        rejections: Vec<Rejection>,
        retry_after_ms: u64,
    ) -> Verdict {
        if self.kept.is_empty() {
            let text = match rejections.iter().max_by_key(|rejection| rejection.hosts) {
                None => "there is no host".to_owned(),
                Some(most) => format!("no host fits; the most frequent obstacle is {}", most.code),
            };
            let reasons = vec![Reason::plain("no-host-fits", text)];
            return Verdict::Defer { retry_after_ms, reasons, rejections };
        }
        let explain = |(host, score)| Choice { host, score, reasons: reasons_of(host) };
        Verdict::Place(Placed { choices: self.kept.into_iter().map(explain).collect(), rejections })
    }
}

#[inline]
fn better(one: (u32, f64), other: (u32, f64)) -> bool {
    one.1.total_cmp(&other.1).then(other.0.cmp(&one.0)).is_gt()
}

/// Ranks hosts by score and explains those that are of use with `reasons_of`: [`Best`] over a list.
#[must_use]
pub fn verdict(
    request: &Request,
    scores: Vec<(u32, f64)>,
    reasons_of: impl Fn(u32) -> Vec<Reason>,
    rejections: Vec<Rejection>,
    retry_after_ms: u64,
) -> Verdict {
    let mut best = Best::of(request);
    for (host, score) in scores {
        best.offer(host, score);
    }
    best.verdict(reasons_of, rejections, retry_after_ms)
}
