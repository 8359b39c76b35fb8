//! Build steps that cargo alone does not know, as functions: `cargo xtask` calls them, and so do tests that need
//! what they make. Start with [`policies::build`]; [`small_disk`] is for tests alone.

pub mod policies;
pub mod small_disk;
