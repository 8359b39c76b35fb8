//! A policy watches a real guest from outside: Debian's cloud kernel on a private libvirtd, in namespaces of its own.
//! The claims are in `tests/linux_integrity.rs`; they need root, and print what a look costs (`--nocapture`).
