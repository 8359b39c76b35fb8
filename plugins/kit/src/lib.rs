//! What an author of a policy starts from.
//!
//! [`scaffold`] gives the files of a folder that builds, tests and measures a policy outside of our tree: a template,
//! the contract ([`contract`]), and for Rust the SDK. [`wrap`] makes a component of the core module that a compiler
//! wrote, and [`interface`] says what a component imports and exports. Values in, values out: writing files, compiling
//! and running are others' work.
//!
//! Invariant: whatever is in a folder that was made here is in this crate, so that a folder always fits the program
//! that made it. A package in a registry was refused for now: until the contract is 1.0, author and controller would
//! too often have two versions of it.

mod contract;
mod interface;
mod scaffold;
mod wrap;

pub use contract::{VERSION, files as contract};
pub use interface::{Interface, InterfaceError, Part, interface};
pub use scaffold::{Language, NewFile, ScaffoldError, UnknownLanguage, scaffold};
pub use wrap::{WrapError, wrap};
