//! Build steps that cargo alone does not know, as functions: `cargo xtask` calls them, and so do tests that need
//! what they make. Start with [`policies::build`].

pub mod policies;
