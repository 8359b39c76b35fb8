//! What the planner promises of a crowd, in the model.

use simulation::{Prefetch, Scenario, Trace, busy_and_idle, faults};
use streamer_plan::Tuning;

fn recorded() -> Trace {
    Trace::recorded().expect("the trace that ships is sound")
}

#[test]
fn sixty_four_hosts_cost_the_origin_what_one_does_and_boot_as_fast() {
    let trace = recorded();
    let one = Scenario::new(1, 100.0, trace.clone()).boot();
    let crowd = Scenario::new(64, 100.0, trace).boot();
    assert!(crowd.origin_vs_unique() < 1.3, "origin: {:.2} of unique bytes", crowd.origin_vs_unique());
    let slower = crowd.time(0.95).as_secs_f64() / one.time(0.95).as_secs_f64();
    assert!(slower < 1.3, "p95: {slower:.2} of one host's");
}

#[test]
fn each_site_of_many_fetches_hardly_more_than_one_copy() {
    let mut scenario = Scenario::new(32, 100.0, recorded());
    scenario.sites = 4;
    let outcome = scenario.boot();
    assert!(outcome.origin_vs_unique() < 4.0 * 1.3, "{:.2}", outcome.origin_vs_unique());
}

#[test]
fn a_wrong_profile_is_not_felt() {
    for (rate, trace) in [(100.0, recorded()), (1000.0, recorded()), (100.0, Trace::synthetic(3))] {
        let time = |profile| {
            let scenario = Scenario { profile, ..Scenario::new(1, rate, trace.clone()) };
            scenario.boot().time(1.0).as_secs_f64()
        };
        let slower = time(Prefetch::Wrong) / time(Prefetch::None);
        assert!(slower <= 1.02, "{slower:.3} at {rate} Mbit/s");
    }
}

#[test]
fn a_right_profile_hides_the_link() {
    let scenario = Scenario::new(1, 100.0, recorded());
    let bound = scenario.trace.thinking().as_secs_f64().max(scenario.trace.bytes() as f64 * 8.0 / 100e6);
    let time = scenario.boot().time(1.0).as_secs_f64();
    assert!(time < bound * 1.25, "{time:.2} s, bound {bound:.2} s");
}

#[test]
fn an_urgent_read_hardly_feels_saturating_prefetch() {
    for (rate, near) in [(100.0, 0), (100.0, 4), (1000.0, 0), (1000.0, 4)] {
        let (busy, idle) = busy_and_idle(rate, near, &Tuning::default());
        let ratio = busy.as_secs_f64() / idle.as_secs_f64();
        assert!(ratio <= 1.35, "{ratio:.2} at {rate} Mbit/s with {near} near hosts");
    }
}

#[test]
fn a_day_of_faults_ends_with_every_piece_at_every_host() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let weather = faults::Weather { hosts: 6, pieces: 48, hours: 24, mbit_per_s: 100.0, pause_s: 120 };
    let day = faults::endure(&weather, seed).unwrap();
    assert!(day.faults > 1000, "{day:?}");
}
