//! The dashboard's files, embedded; every unknown path is a page of it.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use rust_embed::RustEmbed;

#[derive(RustEmbed)]
#[folder = "../../web/dist"]
#[allow_missing = true]
struct Files;

const POLICY: &str = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
                      connect-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const MISSING: &str = "<!doctype html><title>Collective</title><p>The dashboard was not built: run <code>npm ci && npm run \
                       build</code> in <code>web</code>, then build the controller again.";

/// Serves a file, or the page that knows the path.
pub(crate) async fn serve(uri: Uri) -> Response {
    let path = uri.path().trim_start_matches('/');
    let file = Files::get(path).filter(|_| !path.is_empty());
    let (body, kind, cache) = match (file, path.starts_with("assets/")) {
        // Names in this folder carry a digest of the content.
        (Some(file), true) => (file.data, kind(path), "public, max-age=31536000, immutable"),
        (Some(file), false) => (file.data, kind(path), "no-cache"),
        (None, true) => return StatusCode::NOT_FOUND.into_response(),
        (None, false) => match Files::get("index.html") {
            Some(page) => (page.data, "text/html; charset=utf-8", "no-cache"),
            None => (MISSING.as_bytes().into(), "text/html; charset=utf-8", "no-cache"),
        },
    };
    let mut response = Response::new(Body::from(body.into_owned()));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    response
}

fn kind(path: &str) -> &'static str {
    match path.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("js" | "mjs") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("ico") => "image/x-icon",
        Some("json" | "map") => "application/json",
        Some("woff2") => "font/woff2",
        Some("txt") => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}
