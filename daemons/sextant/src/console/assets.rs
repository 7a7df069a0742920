//! The console's pages, as `npm run build` left them when this program was compiled.
//!
//! What Vite puts under `assets/` has a hash of its content in its name and may be kept for ever;
//! the page that names them is asked for anew each time. Without a build there is one page, which
//! says how to make one.

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use rust_embed::{EmbeddedFile, RustEmbed};
use sextant_service::admin::Problem;

#[derive(RustEmbed)]
#[folder = "console/dist"]
struct Built;

const PAGE: &str = "index.html";
/// So much of a hash tells two builds apart.
const TAG_BYTES: usize = 16;
const FOREVER: &str = "public, max-age=31536000, immutable";

const NOT_BUILT: &str = "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">\
<title>Sextant: the console was not built</title>\
<h1>The console was not built</h1>\
<p>This program was compiled without its pages. In the folder of the project:</p>\
<pre>cd daemons/sextant/console\nnpm ci\nnpm run build\ncd -\ncargo build --release -p sextant</pre>\
<p>or at once: <code>cargo xtask up</code>. The daemons run all the same.</p></html>";

/// Whether the pages are there.
pub(crate) fn are_built() -> bool {
    Built::get(PAGE).is_some()
}

/// The file at `path`, which begins with a slash.
pub(super) fn serve(path: &str, headers: &HeaderMap) -> Response {
    let name = if path == "/" { PAGE } else { path.trim_start_matches('/') };
    // A name that begins with a dot only keeps its folder.
    match Built::get(name).filter(|_| !name.starts_with('.')) {
        Some(file) => answer(name, &file, headers),
        None if name == PAGE => {
            let kind = [(header::CONTENT_TYPE, "text/html; charset=utf-8")];
            (kind, NOT_BUILT).into_response()
        }
        None => Problem::not_found("there is nothing at this path").into_response(),
    }
}

fn answer(name: &str, file: &EmbeddedFile, headers: &HeaderMap) -> Response {
    let hash = file.metadata.sha256_hash();
    let tag: String = hash[..TAG_BYTES].iter().map(|byte| format!("{byte:02x}")).collect();
    let tag = format!("\"{tag}\"");
    let keep = if name.starts_with("assets/") { FOREVER } else { "no-cache" };
    let known = headers.get(header::IF_NONE_MATCH).is_some_and(|known| *known == *tag);
    let mut response = match known {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => {
            let kind = [(header::CONTENT_TYPE, content_type(name))];
            (kind, file.data.clone().into_owned()).into_response()
        }
    };
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static(keep));
    if let Ok(tag) = HeaderValue::try_from(tag) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

fn content_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map_or("", |(_, extension)| extension) {
        "html" => "text/html; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "svg" => "image/svg+xml",
        "json" => "application/json",
        "woff2" => "font/woff2",
        _ => "application/octet-stream",
    }
}
