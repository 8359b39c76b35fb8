//! The placement policy `balanced`: spreads instances over the hosts.
//!
//! A host earns points for the capacity that stays free, for idle CPU, for the image it already holds, for being
//! apart from the deployment's other instances and above all from those that its member wishes to avoid, for being in
//! the deployment's site, for having the instance already, for an operator who vouches for it, and for the labels that
//! the member wishes. Each choice carries one reason per consideration; their weights add up to the score. What a
//! consideration is worth is a setting. Ties go to the host that is first by name.
//!
//! It looks at every host, or at a short list that the controller draws by chance from those that fit
//! (`candidates_max`): then it is as fast with ten thousand hosts as with a hundred, and nearly as good.

mod scene;
mod settings;
mod weigh;

use plugins_sdk::placement::{Best, fit};
use plugins_sdk::{
    Cluster, Context, Manifest, PlacementPolicy, Plugin, PolicyError, Request, SettingsIssue, Verdict,
};
use scene::{Columns, Home, Labels, Rows, Scene};
pub use settings::Settings;
use weigh::Weigh;

plugins_sdk::export_placement!(Balanced);

/// The policy.
#[derive(Debug)]
pub struct Balanced;

impl Plugin for Balanced {
    type Settings = Settings;

    fn manifest() -> Manifest {
        Manifest {
            name: "balanced",
            version: env!("CARGO_PKG_VERSION"),
            summary: env!("CARGO_PKG_DESCRIPTION"),
            license: env!("CARGO_PKG_LICENSE"),
            settings_schema: include_str!("settings.schema.json"),
            default_settings: "{}",
        }
    }

    fn check_settings(settings: &Settings) -> Vec<SettingsIssue> {
        settings.check()
    }
}

impl PlacementPolicy for Balanced {
    fn place(
        settings: &Settings,
        request: &Request,
        cluster: &impl Cluster,
        context: &impl Context,
    ) -> Result<Verdict, PolicyError> {
        let labels = Labels::read(request, cluster, context);
        if let Some(verdict) = among_some(settings, request, cluster, context, &labels) {
            return Ok(verdict);
        }
        let home = Home::find(request, cluster, context);
        let mut fit = fit(request, cluster, context);
        if settings.labels_required {
            fit.require_labels(request, cluster, context);
        }
        let scene = Columns::read(request, cluster, &home, &labels, settings.attested > 0.0);
        let weigh = Weigh::new(settings, request, labels.count());
        let mut best = Best::of(request);
        for &host in &fit.hosts {
            best.offer(host, weigh.score(host, &scene.facts(host)));
        }
        let reasons_of = |host| weigh.reasons(host, &scene.facts(host), &home.text);
        Ok(best.verdict(reasons_of, fit.rejections, settings.retry_after_ms))
    }
}

/// The best of a short list; none if there is to be none, or nobody on it would do: then all hosts are looked at, if
/// only to say why not.
fn among_some(
    settings: &Settings,
    request: &Request,
    cluster: &impl Cluster,
    context: &impl Context,
    labels: &Labels,
) -> Option<Verdict> {
    if settings.candidates_max == 0 {
        return None;
    }
    let mut hosts = cluster.feasible(request, settings.candidates_max);
    // The present host is always worth a look: without it nothing could be said of a move.
    if let Some(current) = request.current
        && !hosts.contains(&current)
        && cluster.feasible_mask(request).get(current as usize) == Some(&1)
    {
        hosts.push(current);
    }
    let home = Home::find(request, cluster, context);
    let scene = Rows::read(cluster, &hosts, &home, labels);
    let weigh = Weigh::new(settings, request, labels.count());
    let mut best = Best::of(request);
    let mut any = false;
    for row in &scene.rows {
        let facts = scene.facts(row.host);
        if !settings.labels_required || facts.labels == labels.count() {
            best.offer(row.host, weigh.score(row.host, &facts));
            any = true;
        }
    }
    let reasons_of = |host| weigh.reasons(host, &scene.facts(host), &home.text);
    any.then(|| best.verdict(reasons_of, Vec::new(), settings.retry_after_ms))
}

#[cfg(test)]
mod tests;
