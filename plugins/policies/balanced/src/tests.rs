use super::*;
use plugins_sdk::{Host, Hosts};

const GIB: u64 = 1 << 30;

fn host(name: &str) -> Host {
    Host {
        name: name.to_owned(),
        site: "lyon".to_owned(),
        memory_total_bytes: 8 * GIB,
        memory_free_bytes: 8 * GIB,
        disk_free_bytes: 100 * GIB,
        cpu_total_milli: 4000,
        cpu_free_milli: 4000,
        ..Host::default()
    }
}

fn request() -> Request {
    Request {
        vcpus_milli: 1000,
        memory_bytes: GIB,
        disk_bytes: GIB,
        image_bytes: GIB,
        choices_max: 8,
        ..Request::default()
    }
}

fn place(request: &Request, hosts: Vec<Host>) -> Verdict {
    let hosts = Hosts(hosts);
    Balanced::place(&Settings::default(), request, &hosts, &hosts).unwrap()
}

fn ranking(request: &Request, hosts: Vec<Host>) -> Vec<u32> {
    match place(request, hosts) {
        Verdict::Place(placed) => placed.choices.iter().map(|choice| choice.host).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn prefers_the_host_with_more_room() {
    let small = Host { memory_free_bytes: 2 * GIB, ..host("a") };
    assert_eq!(ranking(&request(), vec![small, host("b")]), [1, 0]);
}

#[test]
fn prefers_the_host_that_holds_the_image() {
    let cached = Host { image_cached_bytes: GIB, ..host("b") };
    assert_eq!(ranking(&request(), vec![host("a"), cached]), [1, 0]);
}

#[test]
fn keeps_instances_of_a_deployment_apart() {
    let with_peer = Host { peers: 1, image_cached_bytes: GIB, ..host("a") };
    assert_eq!(ranking(&request(), vec![with_peer, host("b")]), [1, 0]);
}

#[test]
fn stays_in_the_site_of_its_deployment() {
    let elsewhere = Host { site: "oslo".to_owned(), ..host("a") };
    let with_peer = Host { peers: 1, memory_free_bytes: GIB, ..host("c") };
    assert_eq!(ranking(&request(), vec![elsewhere, host("b"), with_peer])[0], 1);
}

#[test]
fn equals_are_ranked_by_name_and_the_present_host_wins() {
    assert_eq!(ranking(&request(), vec![host("a"), host("b")]), [0, 1]);
    let moved = Request { current: Some(1), ..request() };
    assert_eq!(ranking(&moved, vec![host("a"), host("b")]), [1, 0]);
}

#[test]
fn the_weights_of_the_reasons_add_up_to_the_score() {
    let Verdict::Place(placed) =
        place(&request(), vec![host("a"), Host { load: 0.3, peers: 2, ..host("b") }])
    else {
        panic!("nothing was placed");
    };
    for choice in placed.choices {
        let sum: f64 = choice.reasons.iter().map(|reason| reason.weight).sum();
        assert!((sum - choice.score).abs() < 1e-9, "{choice:?}");
    }
}

#[test]
fn defers_when_nothing_fits_and_says_why() {
    let Verdict::Defer { retry_after_ms, reasons, rejections } =
        place(&request(), vec![Host { memory_free_bytes: 0, ..host("a") }])
    else {
        panic!("it was not deferred");
    };
    assert_eq!((retry_after_ms, reasons[0].code.as_str()), (10_000, "no-host-fits"));
    assert_eq!(rejections[0].code, "too-little-memory");
}

#[test]
fn settings_have_the_defaults_of_their_schema() {
    let schema: serde_json::Value = serde_json::from_str(Balanced::manifest().settings_schema).unwrap();
    let properties = schema["properties"].as_object().unwrap();
    let defaults: serde_json::Map<_, _> =
        properties.iter().map(|(name, property)| (name.clone(), property["default"].clone())).collect();
    assert_eq!(serde_json::from_value::<Settings>(defaults.into()).unwrap(), Settings::default());
}

#[test]
fn settings_out_of_range_are_refused_with_their_path() {
    let settings = Settings { apart: -1.0, site: f64::NAN, retry_after_ms: 0, ..Settings::default() };
    let paths: Vec<_> = Balanced::check_settings(&settings).into_iter().map(|issue| issue.path).collect();
    assert_eq!(paths, ["/apart", "/site", "/retry_after_ms"]);
}

fn wishing(attributes: &[(&str, &str)]) -> Request {
    let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    Request { attributes: attributes.iter().map(own).collect(), ..request() }
}

#[test]
fn avoids_the_members_that_it_wishes_to_be_apart_from_before_all_else() {
    let full = Host { memory_free_bytes: GIB, cpu_free_milli: 1000, load: 1.0, peers: 1, ..host("b") };
    let with_rival = Host { rivals: 1, image_cached_bytes: GIB, ..host("a") };
    let apart = wishing(&[("collective/apart-from", "database")]);
    assert_eq!(ranking(&apart, vec![with_rival.clone(), full.clone()]), [1, 0]);
    // Nobody wishes it: the column is not even looked at.
    assert_eq!(ranking(&request(), vec![with_rival, full]), [0, 1]);
}

#[test]
fn a_wished_label_is_required_unless_the_operator_says_otherwise() {
    let labelled =
        Host { labels: vec![("disk".into(), "nvme".into())], memory_free_bytes: 2 * GIB, ..host("b") };
    let hosts = Hosts(vec![host("a"), labelled]);
    let request = wishing(&[("collective/label/disk", "nvme")]);
    assert_eq!(ranking(&request, hosts.0.clone()), [1]);
    let preferred = Settings { labels_required: false, ..Settings::default() };
    let Verdict::Place(placed) = Balanced::place(&preferred, &request, &hosts, &hosts).unwrap() else {
        panic!("nothing was placed");
    };
    assert_eq!(placed.choices.iter().map(|choice| choice.host).collect::<Vec<_>>(), [1, 0]);
    assert!(placed.choices[0].reasons.iter().any(|reason| reason.code == "labels"));
}

#[test]
fn prefers_attested_hosts_where_the_operator_gives_points_for_it() {
    let hosts = Hosts(vec![host("a"), Host { attested: true, ..host("b") }]);
    assert_eq!(ranking(&request(), hosts.0.clone())[0], 0);
    let settings = Settings { attested: 30.0, ..Settings::default() };
    let Verdict::Place(placed) = Balanced::place(&settings, &request(), &hosts, &hosts).unwrap() else {
        panic!("nothing was placed");
    };
    assert_eq!(placed.choices[0].host, 1);
}

#[test]
fn a_short_list_is_ranked_as_all_hosts_are() {
    let hosts: Vec<Host> = (0_u32..40)
        .map(|n| Host {
            load: (n % 7) as f32 / 7.0,
            peers: n % 3,
            memory_free_bytes: u64::from(1 + n % 8) * GIB,
            image_cached_bytes: u64::from(n % 2) * GIB,
            ..host(&format!("h{n:02}"))
        })
        .collect();
    let hosts = Hosts(hosts);
    let all = Balanced::place(&Settings::default(), &request(), &hosts, &hosts).unwrap();
    let listed = Settings { candidates_max: 40, ..Settings::default() };
    assert_eq!(Balanced::place(&listed, &request(), &hosts, &hosts).unwrap(), all);
    let short = Settings { candidates_max: 5, ..Settings::default() };
    let Verdict::Place(placed) = Balanced::place(&short, &request(), &hosts, &hosts).unwrap() else {
        panic!("nothing was placed");
    };
    assert!(placed.choices.len() == 5 && placed.choices.iter().all(|choice| choice.host < 5));
}

#[test]
fn a_short_list_without_anybody_who_would_do_is_no_reason_to_give_up() {
    let mut hosts = vec![host("a"), host("b"), host("c")];
    hosts[2].labels = vec![("disk".into(), "nvme".into())];
    let hosts = Hosts(hosts);
    let short = Settings { candidates_max: 1, ..Settings::default() };
    let request = wishing(&[("collective/label/disk", "nvme")]);
    let Verdict::Place(placed) = Balanced::place(&short, &request, &hosts, &hosts).unwrap() else {
        panic!("nothing was placed");
    };
    assert_eq!(placed.choices[0].host, 2);
}
