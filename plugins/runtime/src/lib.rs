//! Hosts policies as WebAssembly components.
//!
//! A [`Runtime`] compiles a component once and hands out a [`Policy`]; a policy answers calls, each in a fresh
//! instance that is dropped afterwards. The calls block: run them on a thread that may. This crate neither chooses
//! which policy to ask nor what happens after an error; that is the caller's. Each decision point ([`Kind`]) has a module
//! with its input, its view of the world and its answer, [`placement`] for one; what they share (engine, limits, cache,
//! one call) knows of them only the arms of two enums.
//!
//! Start with [`Runtime::load`] and [`Policy::place`].
//!
//! Invariants:
//! * An answer is a [`Decision`] that was checked in full, or a [`PolicyError`]. There is no third way, and
//!   an error never changes anything.
//! * A guest gets the interfaces of its kind ([`Kind::imports`]) and nothing else; it cannot outlive its deadline, memory, host call
//!   or copy quota (see [`Limits`]), and the next call does not notice that it tried.
//! * The same input gives the same verdict: no clock, no chance, one NaN.
//! * Compiled code is read from disk only if its authentication code, made with a key that only we can read, is
//!   right: whoever can write compiled code is us.
//!
//! Fuel was refused as the deadline: it costs more at compile and run time, and people think in milliseconds. The
//! deadline is processor time, so that a busy machine does not turn good policies into failing ones.

#![expect(unsafe_code, reason = "compiled code from the cache is mapped; the thread's clock is a C function")]

mod bindings;
mod breaker;
mod cache;
mod call;
mod canonical;
pub mod checkpoint;
mod compiler;
mod deadline;
mod decision;
mod error;
mod imports;
pub mod instances;
pub mod introspection;
mod kind;
mod limits;
mod load;
mod manifest;
mod outcome;
pub mod placement;
mod policy;
mod reasons;
mod runtime;
mod state;
mod symbols;
pub mod update;
mod world;

pub use breaker::{Breaker, BreakerLimits, BreakerState, LeftAlone};
pub use compiler::{COMPILE_ARGUMENT, Compiler, compile_child};
pub use deadline::thread_time;
pub use decision::{Decision, LogLevel, LogLine, Reason};
pub use error::PolicyError;
pub use kind::{Kind, UnknownKind};
pub use limits::{CompileLimits, Limits};
pub use load::LoadError;
pub use manifest::{Manifest, SettingsIssue};
pub use outcome::Outcome;
pub use policy::Policy;
pub use runtime::{Runtime, StartError, component_digest};
pub use state::State;
