//! OpenAI's form of an error, which clients made for its API understand.
//!
//! Source of the form: the schema `Error` of OpenAI's API description, where `param` and `code` may be null and all four are
//! there. Clients tell errors apart by the status first, which stays what it is.

use http::StatusCode;
use serde::Serialize;

/// What the paths of OpenAI's API begin with.
const API: &str = "/v1/";

/// Whether a request for `path` is one of OpenAI's API.
pub fn is_api(path: &str) -> bool {
    path.starts_with(API)
}

/// The error as JSON on one line. `code` is one of our own, or says what the model's answer was.
pub fn error(status: StatusCode, code: &str, message: &str) -> String {
    let kind = if status.is_client_error() {
        "invalid_request_error"
    } else {
        "server_error"
    };
    let body = Body {
        error: Error {
            message,
            kind,
            param: (),
            code,
        },
    };
    // Texts and a unit cannot fail to be written.
    serde_json::to_string(&body).unwrap_or_default()
}

#[derive(Serialize)]
struct Body<'a> {
    error: Error<'a>,
}

#[derive(Serialize)]
struct Error<'a> {
    message: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    /// Always null: nothing of a request's body is ever looked at.
    param: (),
    code: &'a str,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_is_openais_and_texts_are_escaped() {
        assert_eq!(
            error(
                StatusCode::SERVICE_UNAVAILABLE,
                "hold-full",
                "too \"many\"\n"
            ),
            r#"{"error":{"message":"too \"many\"\n","type":"server_error","param":null,"code":"hold-full"}}"#
        );
        let refused = error(StatusCode::FORBIDDEN, "x", "y");
        assert!(
            refused.contains(r#""type":"invalid_request_error""#),
            "{refused}"
        );
    }

    #[test]
    fn only_paths_below_v1_are_of_the_api() {
        assert!(is_api("/v1/models") && is_api("/v1/"));
        for other in ["/v1", "/v11/models", "/v2/models", "/openai/v1/models", "/"] {
            assert!(!is_api(other), "{other}");
        }
    }
}
