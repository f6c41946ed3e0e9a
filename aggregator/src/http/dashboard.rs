//! `GET /`: one page for people, on top of the REST API alone. Static: it knows nothing that the API does not say.
//!
//! The browser may run only its script and style and ask only this address; what it shows of events is set as
//! text, never as markup.

#[cfg(test)]
mod tests;

use axum::Router;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;

use crate::app::App;

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const PAGE: &str = include_str!("dashboard/page.html");
const STYLE: &str = include_str!("dashboard/style.css");
const SCRIPT: &str = include_str!("dashboard/script.js");

/// The page and its two files; no part of the API and its document.
pub(crate) fn routes() -> Router<App> {
    Router::new()
        .route("/", get(async || file("text/html; charset=utf-8", PAGE)))
        .route(
            "/dashboard.css",
            get(async || file("text/css; charset=utf-8", STYLE)),
        )
        .route(
            "/dashboard.js",
            get(async || file("text/javascript; charset=utf-8", SCRIPT)),
        )
}

fn file(content_type: &'static str, text: &'static str) -> impl IntoResponse {
    let headers = [
        (header::CONTENT_TYPE, content_type),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, text)
}
