//! Every identifier that a trunk can carry.

use crate::claims::vlan;
use crate::world::World;
use netd_plan::Target;
use std::time::Instant;

const TRUNK: &str = "trunk0";

pub(crate) fn every_vlan_of_a_trunk_is_made_and_removed() {
    let mut world = World::new();
    let _trunk = world.namespace.run(|_, _| netd_kernel::open_tap(TRUNK)).unwrap();
    world.host.trunks = [("core".to_owned(), TRUNK.to_owned())].into();
    for refused in [0, 1, 4095, 4096, u16::MAX] {
        world.desired.networks = vec![vlan(refused, Vec::new())];
        let error = Target::new(&world.desired, &world.host).unwrap_err().to_string();
        assert!(error.contains(&refused.to_string()), "{error}");
    }
    let before = world.observe();
    world.desired.networks = (2..=4094).map(|vid| vlan(vid, Vec::new())).collect();
    let begin = Instant::now();
    world.converge();
    println!("made in {:.1} s", begin.elapsed().as_secs_f64());
    let made = world.observe();
    let up = |name: &str| made.links.get(name).is_some_and(|link| link.up);
    assert!((2..=4094).all(|vid| up(&format!("cb{vid}")) && up(&format!("cv{vid}"))));
    world.desired.networks.clear();
    let begin = Instant::now();
    world.converge();
    println!("removed in {:.1} s", begin.elapsed().as_secs_f64());
    let mut after = world.observe();
    after.links.get_mut(TRUNK).unwrap().up = before.links[TRUNK].up;
    after.bridge_netfilter = before.bridge_netfilter;
    assert_eq!(after, before);
}
