use super::*;

fn roomy() -> Host {
    Host {
        memory_total_bytes: 100,
        memory_free_bytes: 100,
        disk_free_bytes: 100,
        cpu_total_milli: 100,
        cpu_free_milli: 100,
        ..Host::default()
    }
}

fn request() -> Request {
    Request { vcpus_milli: 10, memory_bytes: 10, disk_bytes: 10, choices_max: 8, ..Request::default() }
}

#[test]
fn each_hard_limit_rejects_by_its_own_code() {
    let hosts = Hosts(vec![
        Host { state: 3, ..roomy() },
        Host { memory_free_bytes: 9, ..roomy() },
        Host { cpu_free_milli: 9, ..roomy() },
        Host { disk_free_bytes: 9, ..roomy() },
        roomy(),
    ]);
    let fit = fit(&request(), &hosts, &hosts);
    assert_eq!(fit.hosts, [4]);
    let codes: Vec<_> = fit.rejections.iter().map(|r| (r.code.as_str(), r.examples[0])).collect();
    let expected =
        [("not-ready", 0), ("too-little-memory", 1), ("too-little-cpu", 2), ("too-little-disk", 3)];
    assert_eq!(codes, expected);
}

#[test]
fn an_image_that_is_cached_needs_no_second_room() {
    let request = Request { image_bytes: 95, ..request() };
    let hosts = Hosts(vec![roomy(), Host { image_cached_bytes: 95, ..roomy() }]);
    assert_eq!(fit(&request, &hosts, &hosts).hosts, [1]);
}

#[test]
fn volumes_pin_an_instance_to_their_host() {
    let request = Request { pinned: Some(1), ..request() };
    let hosts = Hosts(vec![roomy(); 3]);
    assert_eq!(fit(&request, &hosts, &hosts).hosts, [1]);
}

#[test]
fn a_rejection_names_at_most_eight_hosts() {
    let hosts = Hosts(vec![Host { state: 1, ..roomy() }; 20]);
    let rejection = fit(&request(), &hosts, &hosts).rejections.remove(0);
    assert_eq!((rejection.hosts, rejection.examples.len()), (20, EXAMPLES_MAX));
}

fn wishing(attributes: &[(&str, &str)]) -> Request {
    let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    Request { attributes: attributes.iter().map(own).collect(), ..request() }
}

#[test]
fn the_wished_site_and_attestation_are_hard_limits() {
    let hosts = Hosts(vec![
        Host { site: "oslo".into(), attested: true, ..roomy() },
        Host { site: "lyon".into(), ..roomy() },
        Host { site: "lyon".into(), attested: true, ..roomy() },
    ]);
    let request = wishing(&[("collective/site", "lyon"), ("collective/attested", "true")]);
    let found = fit(&request, &hosts, &hosts);
    assert_eq!(found.hosts, [2]);
    let codes: Vec<_> = found.rejections.iter().map(|r| (r.code.as_str(), r.examples[0])).collect();
    assert_eq!(codes, [("other-site", 0), ("not-attested", 1)]);
    let nowhere = wishing(&[("collective/site", "bern")]);
    assert_eq!(fit(&nowhere, &hosts, &hosts).rejections[0].hosts, 3);
}

#[test]
fn a_required_label_rejects_hosts_with_another_value_or_none() {
    let labelled = |value: &str| Host { labels: vec![("rack/row".into(), value.into())], ..roomy() };
    let hosts = Hosts(vec![labelled("a"), roomy(), labelled("b")]);
    let require = |value: &str| {
        let request = wishing(&[("collective/label/rack/row", value)]);
        let mut found = fit(&request, &hosts, &hosts);
        found.require_labels(&request, &hosts, &hosts);
        found
    };
    assert_eq!(require("b").hosts, [2]);
    assert_eq!(
        (require("b").rejections[0].code.as_str(), require("b").rejections[0].hosts),
        ("label-missing", 2)
    );
    assert!(require("nobody-has-this").hosts.is_empty());
}

/// A cluster whose own mask is stricter than what the SDK knows.
struct Masked(Hosts, Vec<u8>);

impl Cluster for Masked {
    fn host_count(&self) -> usize {
        self.0.host_count()
    }
    fn host_name(&self, host: u32) -> String {
        self.0.host_name(host)
    }
    fn sites(&self) -> Vec<u32> {
        self.0.sites()
    }
    fn states(&self) -> Vec<u8> {
        self.0.states()
    }
    fn memory_total_bytes(&self) -> Vec<u64> {
        self.0.memory_total_bytes()
    }
    fn memory_free_bytes(&self) -> Vec<u64> {
        self.0.memory_free_bytes()
    }
    fn disk_free_bytes(&self) -> Vec<u64> {
        self.0.disk_free_bytes()
    }
    fn cpu_total_milli(&self) -> Vec<u32> {
        self.0.cpu_total_milli()
    }
    fn cpu_free_milli(&self) -> Vec<u32> {
        self.0.cpu_free_milli()
    }
    fn instance_counts(&self) -> Vec<u32> {
        self.0.instance_counts()
    }
    fn loads(&self) -> Vec<f32> {
        self.0.loads()
    }
    fn image_cached_bytes(&self) -> Vec<u64> {
        self.0.image_cached_bytes()
    }
    fn peers(&self) -> Vec<u32> {
        self.0.peers()
    }
    fn feasible_mask(&self, _request: &Request) -> Vec<u8> {
        self.1.clone()
    }
}

#[test]
fn a_host_that_the_cluster_rules_out_is_rejected_even_if_nobody_here_knows_why() {
    let hosts = Hosts(vec![roomy(), roomy(), Host { state: 3, ..roomy() }]);
    let masked = Masked(hosts.clone(), vec![1, 0, 0]);
    let found = fit(&request(), &masked, &hosts);
    assert_eq!(found.hosts, [0]);
    let codes: Vec<_> = found.rejections.iter().map(|r| r.code.as_str()).collect();
    assert_eq!(codes, ["not-feasible", "not-ready"]);
}

#[test]
fn the_best_are_those_that_sorting_would_put_first() {
    // A small generator of our own: the crate has no use for a larger one.
    let mut state = 1_u64;
    let mut draw = move |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    for most in [1, 2, 8, 64] {
        for count in [0_u64, 1, 7, 64, 500] {
            // Few different scores, so that there are many equals; in an order of their own.
            #[expect(clippy::cast_precision_loss, reason = "small numbers")]
            let mut scores: Vec<(u32, f64)> =
                (0..).take(count as usize).map(|host| (host, draw(9) as f64)).collect();
            for place in (1..scores.len()).rev() {
                scores.swap(place, draw(place as u64 + 1) as usize);
            }
            let request = Request { choices_max: most, ..request() };
            let ranked = verdict(&request, scores.clone(), |_| Vec::new(), Vec::new(), 1);
            scores.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
            scores.truncate(most as usize);
            match ranked {
                Verdict::Place(placed) => {
                    let got: Vec<_> =
                        placed.choices.iter().map(|choice| (choice.host, choice.score)).collect();
                    assert_eq!(got, scores);
                }
                other => assert!(scores.is_empty(), "{other:?}"),
            }
        }
    }
}

#[test]
fn rows_are_the_columns_of_the_hosts_that_were_asked_for() {
    let hosts = Hosts(vec![roomy(), Host { site: "lyon".into(), peers: 2, rivals: 1, ..roomy() }]);
    let rows = hosts.rows(&[1, 0]);
    assert_eq!((rows[0].host, rows[0].site, rows[0].peers, rows[0].rivals), (1, 1, 2, 1));
    assert_eq!((rows[1].host, rows[1].site, rows[1].memory_free_bytes), (0, 0, 100));
}
