//! One module a group of figures. Each takes the lab and adds its figures.

pub(crate) mod boot;
pub(crate) mod crowd;
pub(crate) mod download;
pub(crate) mod huge;
pub(crate) mod update;
pub(crate) mod urgent;
pub(crate) mod warm;
