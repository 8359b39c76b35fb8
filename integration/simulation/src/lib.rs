//! Swarms of planners in virtual time, over recorded boots.
//!
//! Hosts run the streamer's real [`streamer_plan::Scheduler`]; links, uplink queues, disks and guests are models. It
//! answers how the classes of pieces should share a link, without a machine for each host; it does not say how fast the
//! code runs. Start at [`Scenario`]; [`World`] is the model, [`faults`] a day of bad luck.

mod event;
pub mod faults;
mod node;
mod quarrel;
mod scenario;
mod trace;
mod uploads;
mod world;

pub use node::{Guest, Node};
pub use scenario::{Outcome, Prefetch, Scenario, busy_and_idle};
pub use trace::{PIECE_BYTES, Trace};
pub use world::{Links, ORIGIN, Totals, World};
