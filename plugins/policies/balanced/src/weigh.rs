//! What each consideration gives a host.

use crate::scene::Facts;
use crate::settings::Settings;
use plugins_sdk::placement::ratio;
use plugins_sdk::{Reason, Request};

/// One call's settings and request.
pub(crate) struct Weigh<'a> {
    settings: &'a Settings,
    request: &'a Request,
    /// Wished labels.
    labels: u32,
    apart: bool,
    /// Points for one byte of the image.
    image: f64,
}

impl<'a> Weigh<'a> {
    #[expect(clippy::cast_precision_loss, reason = "values are below 2^53")]
    pub(crate) fn new(settings: &'a Settings, request: &'a Request, labels: u32) -> Self {
        let image = settings.image / (request.image_bytes.max(1) as f64);
        Self { settings, request, labels, apart: request.wants_apart(), image }
    }

    /// The sum of the [`points`](Self::points).
    #[inline]
    pub(crate) fn score(&self, host: u32, facts: &Facts) -> f64 {
        self.points(host, facts).iter().sum()
    }

    /// What each consideration gives.
    #[inline]
    fn points(&self, host: u32, facts: &Facts) -> [f64; 9] {
        let settings = self.settings;
        [
            settings.capacity * self.free(facts),
            settings.idle * (1.0 - f64::from(facts.load)),
            self.image_points(facts),
            shared(settings.apart, facts.peers),
            if self.apart { shared(settings.apart_from, facts.rivals) } else { 0.0 },
            if facts.near { settings.site } else { 0.0 },
            if self.request.current == Some(host) { settings.stay } else { 0.0 },
            if facts.attested { settings.attested } else { 0.0 },
            if self.labels == 0 {
                0.0
            } else {
                settings.labels * f64::from(facts.labels) / f64::from(self.labels)
            },
        ]
    }

    /// Share of memory and CPU, whichever is scarcer, that stays free.
    #[inline]
    fn free(&self, facts: &Facts) -> f64 {
        let memory = ratio(facts.memory_free.saturating_sub(self.request.memory_bytes), facts.memory_total);
        let cpu_left = facts.cpu_free.saturating_sub(self.request.vcpus_milli);
        memory.min(ratio(cpu_left.into(), facts.cpu_total.into()))
    }

    #[inline]
    #[expect(clippy::cast_precision_loss, reason = "values are below 2^53")]
    fn image_points(&self, facts: &Facts) -> f64 {
        match self.request.image_bytes {
            0 => self.settings.image,
            all => self.image * facts.cached.min(all) as f64,
        }
    }

    /// Share of the image that is there.
    fn cached(&self, facts: &Facts) -> f64 {
        if self.request.image_bytes == 0 { 1.0 } else { ratio(facts.cached, self.request.image_bytes) }
    }

    /// The same in words. What nobody asked for is not spoken of.
    pub(crate) fn reasons(&self, host: u32, facts: &Facts, home: &str) -> Vec<Reason> {
        let here = self.request.current == Some(host);
        let vouched = if facts.attested { "the operator vouches for it" } else { "nobody vouches for it" };
        let words = [
            Some(("capacity-left", format!("{} of the host stays free", percent(self.free(facts))))),
            Some(("cpu-idle", format!("{} of the CPU is in use", percent(f64::from(facts.load))))),
            Some(("image-present", format!("{} of the image is there", percent(self.cached(facts))))),
            Some((
                "apart-from-peers",
                format!("{} other instances of the deployment are there", facts.peers),
            )),
            self.apart.then(|| {
                ("apart-from-rivals", format!("{} that it wishes to avoid are there", facts.rivals))
            }),
            Some(("site-of-deployment", home.to_owned())),
            Some(("already-there", (if here { "no move is needed" } else { "" }).to_owned())),
            (self.settings.attested > 0.0).then(|| ("attested", vouched.to_owned())),
            (self.labels > 0)
                .then(|| ("labels", format!("it has {} of {} wished labels", facts.labels, self.labels))),
        ];
        let reasons = words.into_iter().zip(self.points(host, facts));
        reasons
            .filter_map(|(words, weight)| words.map(|(code, text)| Reason::new(code, text, weight)))
            .collect()
    }
}

/// Points that fall with every one who is there; nearly all hosts have nobody.
#[inline]
fn shared(points: f64, others: u32) -> f64 {
    if others == 0 { points } else { points / (1.0 + f64::from(others)) }
}

/// A ratio for people, in whole per cent.
#[expect(clippy::cast_possible_truncation, reason = "a ratio is in 0.0 ..= 1.0")]
fn percent(ratio: f64) -> String {
    format!("{} %", (ratio * 100.0).round() as i64)
}
