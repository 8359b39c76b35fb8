//! Swarms of planners in virtual time, over recorded boots.

fn main() {}
