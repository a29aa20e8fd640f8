//! Where a collector is.

use std::str::FromStr;

use http::Uri;

/// The base of a collector's paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint(String);

/// A text is not one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is no collector's address: expected http://HOST:PORT, such as http://otel-collector:4318"
)]
pub struct InvalidEndpoint {
    text: String,
}

impl FromStr for Endpoint {
    type Err = InvalidEndpoint;

    fn from_str(text: &str) -> Result<Self, InvalidEndpoint> {
        let uri = text.parse::<Uri>().ok().filter(|uri| {
            uri.scheme_str() == Some("http")
                && uri.host().is_some_and(|host| !host.is_empty())
                && uri.query().is_none()
                && !uri.authority().is_some_and(|a| a.as_str().contains('@'))
        });
        match uri {
            Some(_) => Ok(Self(text.trim_end_matches('/').to_owned())),
            None => Err(InvalidEndpoint {
                text: text.to_owned(),
            }),
        }
    }
}

impl Endpoint {
    /// Where it takes spans. Source: the OTLP specification, "OTLP/HTTP Request".
    pub(super) fn traces(&self) -> String {
        format!("{}/v1/traces", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_a_base_without_tls() {
        let traces = |text: &str| text.parse::<Endpoint>().map(|endpoint| endpoint.traces());
        for (text, at) in [
            ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
            ("http://collector/", "http://collector/v1/traces"),
            ("http://[::1]:1/base", "http://[::1]:1/base/v1/traces"),
        ] {
            assert_eq!(traces(text).as_deref(), Ok(at));
        }
        for text in [
            "",
            "collector:4318",
            "https://collector:4318",
            "http://",
            "http://a/?b",
            "http://me:secret@a",
            "http://a b",
        ] {
            let error = traces(text).unwrap_err().to_string();
            assert!(error.contains("expected http://HOST:PORT"), "{error}");
        }
    }
}
