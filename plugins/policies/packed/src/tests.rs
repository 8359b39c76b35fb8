use super::*;
use plugins_sdk::{Host, Hosts};

fn host(memory_free_bytes: u64) -> Host {
    Host {
        memory_total_bytes: 100,
        memory_free_bytes,
        disk_free_bytes: 100,
        cpu_total_milli: 4000,
        cpu_free_milli: 4000,
        ..Host::default()
    }
}

fn place(settings: &Settings, hosts: Vec<Host>) -> Verdict {
    let request = Request { vcpus_milli: 1000, memory_bytes: 10, choices_max: 8, ..Request::default() };
    let hosts = Hosts(hosts);
    Packed::place(settings, &request, &hosts, &hosts).unwrap()
}

fn ranking(hosts: Vec<Host>) -> Vec<u32> {
    match place(&Settings::default(), hosts) {
        Verdict::Place(placed) => placed.choices.iter().map(|choice| choice.host).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn prefers_the_fullest_host_that_fits() {
    assert_eq!(ranking(vec![host(100), host(10), host(9), host(50)]), [1, 3, 0]);
}

#[test]
fn equals_go_to_the_host_with_more_instances_then_to_the_first() {
    assert_eq!(ranking(vec![host(50), Host { instance_count: 1, ..host(50) }]), [1, 0]);
    assert_eq!(ranking(vec![host(50), host(50)]), [0, 1]);
}

#[test]
fn keeps_the_spare_share_free() {
    let settings = Settings { spare: 0.5, ..Settings::default() };
    let Verdict::Place(placed) = place(&settings, vec![host(55), host(65)]) else {
        panic!("nothing was placed");
    };
    assert_eq!(placed.choices.iter().map(|choice| choice.host).collect::<Vec<_>>(), [1]);
    assert_eq!(placed.rejections[0].code, "kept-spare");
}

#[test]
fn settings_have_the_defaults_of_their_schema() {
    let schema: serde_json::Value = serde_json::from_str(Packed::manifest().settings_schema).unwrap();
    let properties = schema["properties"].as_object().unwrap();
    let defaults: serde_json::Map<_, _> =
        properties.iter().map(|(name, property)| (name.clone(), property["default"].clone())).collect();
    assert_eq!(serde_json::from_value::<Settings>(defaults.into()).unwrap(), Settings::default());
}

#[test]
fn a_spare_share_of_everything_is_refused() {
    let settings = Settings { spare: 1.0, ..Settings::default() };
    assert_eq!(Packed::check_settings(&settings)[0].path, "/spare");
}

#[test]
fn a_host_with_an_instance_that_it_wishes_to_avoid_comes_last() {
    let attributes = vec![("collective/apart-from".to_owned(), "database".to_owned())];
    let request =
        Request { vcpus_milli: 1000, memory_bytes: 10, choices_max: 8, attributes, ..Request::default() };
    let hosts = Hosts(vec![Host { rivals: 1, ..host(10) }, host(100)]);
    let Verdict::Place(placed) = Packed::place(&Settings::default(), &request, &hosts, &hosts).unwrap()
    else {
        panic!("nothing was placed");
    };
    assert_eq!(placed.choices.iter().map(|choice| choice.host).collect::<Vec<_>>(), [1, 0]);
    for choice in placed.choices {
        let sum: f64 = choice.reasons.iter().map(|reason| reason.weight).sum();
        assert!((sum - choice.score).abs() < 1e-9, "{choice:?}");
    }
}
