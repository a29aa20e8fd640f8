//! The page that a browser gets in place of being held. Nothing of the request is in it, and it asks for nothing else: no script, no
//! image, no font.

use std::borrow::Cow;

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode,
    header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, RETRY_AFTER},
};
use shared::http::body::Body;

use super::accept;
use crate::workload::REFRESH;

const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");

/// Whether a request is a browser's that would show a page: what scripts fetch says so in `Sec-Fetch-Mode`, which they cannot set
/// (W3C Fetch Metadata, section 2.2). Browsers that send none are known by what they accept.
pub(super) fn is_wanted(method: &Method, headers: &HeaderMap) -> bool {
    let mode = headers.get(SEC_FETCH_MODE);
    method == Method::GET
        && mode.is_none_or(|mode| mode == "navigate")
        && accept::prefers(headers, "text/html")
}

/// The page.
pub(super) fn answer(title: &str) -> Response<Body> {
    let mut answer = Response::new(Body::full(page(title)));
    *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    let headers = answer.headers_mut();
    for (name, value) in [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CACHE_CONTROL, "no-store"),
        (
            CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'",
        ),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert(RETRY_AFTER, REFRESH.as_secs().into());
    answer
}

fn page(title: &str) -> String {
    let title = escaped(title);
    let seconds = REFRESH.as_secs();
    format!(
        r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="refresh" content="{seconds}">
<meta name="robots" content="noindex">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; --ink: #1c2128; --soft: #4d5661; --paper: #f6f7f9; --mark: #0b5cad; }}
@media (prefers-color-scheme: dark) {{
  :root {{ --ink: #e9ecef; --soft: #aeb6c0; --paper: #14171b; --mark: #7ab8ff; }}
}}
body {{ margin: 0; min-height: 100vh; display: grid; place-items: center; font: 1.05rem/1.5 system-ui, sans-serif;
  color: var(--ink); background: var(--paper); }}
main {{ max-width: 34rem; padding: 2rem; text-align: center; }}
h1 {{ font-size: 1.6rem; overflow-wrap: anywhere; }}
p {{ color: var(--soft); }}
a {{ color: var(--mark); }}
.dot {{ display: inline-block; width: .9rem; height: .9rem; border-radius: 50%; background: var(--mark); }}
@media (prefers-reduced-motion: no-preference) {{
  .dot {{ animation: breathe 2s ease-in-out infinite; }}
  @keyframes breathe {{ 50% {{ opacity: .25; }} }}
}}
</style>
</head>
<body>
<main>
<span class="dot" aria-hidden="true"></span>
<h1>{title}</h1>
<p role="status">It was asleep and is starting now. This page loads itself again every {seconds} seconds until it is there.</p>
<p><a href="">Try again now</a></p>
</main>
</body>
</html>
"#
    )
}

/// Text that stays text between tags and in attributes.
fn escaped(text: &str) -> Cow<'_, str> {
    if !text.contains(['&', '<', '>', '"', '\'']) {
        return text.into();
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c => safe.push(c),
        }
    }
    safe.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_small_whatever_its_title_and_the_title_stays_text() {
        for title in [
            "The model is waking up",
            &"'".repeat(80),
            &"\u{1f338}".repeat(80),
        ] {
            assert!(page(title).len() < 4096, "{title}: {}", page(title).len());
        }
        let page = page("</title><script>x</script> \"&' {seconds}");
        let safe = "&lt;/title&gt;&lt;script&gt;x&lt;/script&gt; &quot;&amp;&#39; {seconds}";
        assert!(page.contains(&format!("<title>{safe}</title>")), "{page}");
        assert!(page.contains(&format!("<h1>{safe}</h1>")), "{page}");
        assert_eq!(page.matches("<script").count(), 0);
        for wanted in [
            r#"<html lang="en">"#,
            r#"<meta http-equiv="refresh" content="5">"#,
            r#"role="status""#,
            "prefers-color-scheme: dark",
            "prefers-reduced-motion: no-preference",
        ] {
            assert!(page.contains(wanted), "{wanted}");
        }
        for asks in ["http:", "https:", "src=", "url(", "@import", "<link"] {
            assert!(!page.contains(asks), "{asks}");
        }
    }

    #[test]
    fn only_a_navigation_that_prefers_a_page_gets_it() {
        let wanted = |method: Method, mode: Option<&'static str>, accept: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("accept", HeaderValue::from_static(accept));
            if let Some(mode) = mode {
                headers.insert(SEC_FETCH_MODE, HeaderValue::from_static(mode));
            }
            is_wanted(&method, &headers)
        };
        let html = "text/html, */*;q=0.8";
        assert!(wanted(Method::GET, None, html));
        assert!(wanted(Method::GET, Some("navigate"), html));
        assert!(!wanted(Method::GET, Some("cors"), html));
        assert!(!wanted(Method::HEAD, None, html));
        assert!(!wanted(Method::POST, Some("navigate"), html));
        assert!(!wanted(Method::GET, Some("navigate"), "*/*"));
    }
}
