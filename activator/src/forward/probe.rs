//! Answers to health checks of a workload that sleeps.

use http::{
    HeaderValue, Method, Request, Response, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE},
};
use shared::http::body::Body;

use autoscaler_core::OptIns;

/// The whole body.
const TEXT: &str = "rouse: no pod is ready; nobody was asked, and nothing is woken by this\n";

/// The status for a request that is a probe, if probes are answered. The query does not matter.
pub(super) fn answered_with<B>(request: &Request<B>, asked: &OptIns) -> Option<StatusCode> {
    let status = StatusCode::from_u16(asked.probe_answer?).ok()?;
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    (reads && is_path(asked, request.uri().path())).then_some(status)
}

/// Whether what asks for this path is a probe.
pub(super) fn is_path(asked: &OptIns, path: &str) -> bool {
    asked.probe_paths.iter().any(|probe| probe == path)
}

/// The answer. To a HEAD the body is left out where it is written.
pub(super) fn answer(status: StatusCode) -> Response<Body> {
    // RFC 9110, sections 15.3.5, 15.3.6 and 15.4.5: no content.
    let bare = matches!(
        status,
        StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED
    );
    let mut answer = Response::new(if bare {
        Body::empty()
    } else {
        Body::full(TEXT)
    });
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if !bare {
        let kind = HeaderValue::from_static("text/plain; charset=utf-8");
        headers.insert(CONTENT_TYPE, kind);
    }
    answer
}
