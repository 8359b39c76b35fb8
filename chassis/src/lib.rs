//! What every daemon of Collective stands on: configuration, telemetry, HTTP over unix sockets and TLS, the reconcile
//! loop, shutdown.
//!
//! A daemon's `main` is a table of contents over these: [`config::load`], [`telemetry::init`], build, serve
//! ([`unix_http::serve`] or [`tls::serve`]), reconcile ([`reconcile::spawn`]), drain ([`shutdown`]). There is no domain
//! word in here: a line that knows what a bundle or a port is belongs elsewhere.

pub mod clock;
pub mod config;
pub mod durable;
pub mod metrics;
pub mod reconcile;
pub mod shutdown;
pub mod telemetry;
pub mod tls;
pub mod unix_http;
