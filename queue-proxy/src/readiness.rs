//! The pod's readiness probe, handed over at injection.
//!
//! It comes as Kubernetes writes it (`core/v1 Probe`, JSON), with ports as numbers, so that whoever reads the Pod knows it
//! again. What the kubelet would do with `initialDelaySeconds` is left out: asking early costs nothing here.

use std::{net::SocketAddr, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, header::HOST};
use serde::Deserialize;
use shared::http::probe::Probe;

use crate::model::Config;

/// A readiness probe of one of the three kinds that go over the network.
#[derive(Clone, Debug, PartialEq)]
pub struct Readiness {
    probe: Probe,
    port: u16,
    period: Duration,
    timeout: Duration,
    success_threshold: u32,
    failure_threshold: u32,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    http_get: Option<HttpGet>,
    tcp_socket: Option<TcpSocket>,
    grpc: Option<Grpc>,
    period_seconds: Option<u32>,
    timeout_seconds: Option<u32>,
    success_threshold: Option<u32>,
    failure_threshold: Option<u32>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct HttpGet {
    path: Option<String>,
    port: u16,
    #[serde(default)]
    http_headers: Vec<Header>,
    scheme: Option<String>,
}

#[derive(Deserialize)]
struct Header {
    name: String,
    value: String,
}

#[derive(Deserialize)]
struct TcpSocket {
    port: u16,
}

#[derive(Deserialize)]
struct Grpc {
    port: u16,
    service: Option<String>,
}

impl Readiness {
    /// Reads a probe.
    ///
    /// # Errors
    /// One line that says what is wrong and what is allowed.
    pub fn parse(text: &str) -> Result<Self, String> {
        let written: Written = serde_json::from_str(text).map_err(|error| {
            format!("expected a Kubernetes Probe as JSON with numbered ports: {error}")
        })?;
        let (probe, port) = match (&written.http_get, &written.tcp_socket, &written.grpc) {
            (Some(get), None, None) => (get.probe()?, get.port),
            (None, Some(socket), None) => (Probe::Tcp, socket.port),
            (None, None, Some(grpc)) => {
                let service = grpc.service.clone().unwrap_or_default();
                (Probe::Grpc { service }, grpc.port)
            }
            _ => return Err("expected exactly one of httpGet, tcpSocket and grpc".to_owned()),
        };
        // Kubernetes' defaults, and its least values.
        let at_least_one = |given: Option<u32>, default: u32| given.unwrap_or(default).max(1);
        let seconds = |given, default| Duration::from_secs(at_least_one(given, default).into());
        Ok(Self {
            probe,
            port,
            period: seconds(written.period_seconds, 10),
            timeout: seconds(written.timeout_seconds, 1),
            success_threshold: at_least_one(written.success_threshold, 1),
            failure_threshold: at_least_one(written.failure_threshold, 3),
        })
    }

    /// How to ask the model whose host is that of `upstream`.
    pub(crate) fn config(&self, upstream: SocketAddr) -> Config {
        Config {
            probe: self.probe.clone(),
            address: SocketAddr::new(upstream.ip(), self.port),
            timeout: self.timeout,
            period: self.period,
            failure_threshold: self.failure_threshold,
            success_threshold: self.success_threshold,
        }
    }
}

impl HttpGet {
    fn probe(&self) -> Result<Probe, String> {
        let https = match self.scheme.as_deref() {
            None | Some("" | "HTTP") => false,
            Some("HTTPS") => true,
            Some(scheme) => {
                return Err(format!(
                    "httpGet.scheme is {scheme:?}: expected HTTP or HTTPS"
                ));
            }
        };
        let path = match self.path.as_deref() {
            None | Some("") => "/",
            Some(path) => path,
        };
        if !path.starts_with('/') || path.parse::<http::uri::PathAndQuery>().is_err() {
            return Err(format!(
                "httpGet.path is {path:?}: expected an absolute path"
            ));
        }
        let mut headers = HeaderMap::new();
        for Header { name, value } in &self.http_headers {
            let bad =
                || format!("httpGet.httpHeaders has {name:?}: {value:?}, which is no HTTP header");
            let name: HeaderName = name.parse().map_err(|_| bad())?;
            let value = HeaderValue::from_str(value).map_err(|_| bad())?;
            // The kubelet too sends one Host, and the last of several.
            if name == HOST {
                headers.insert(name, value);
            } else {
                headers.append(name, value);
            }
        }
        Ok(Probe::Http {
            path: path.to_owned(),
            headers,
            https,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_kinds() {
        let http = r#"{"httpGet":{"path":"/v2/health/ready","port":8080,"scheme":"HTTP",
            "httpHeaders":[{"name":"X-A","value":"1"}]},"periodSeconds":5,"failureThreshold":7}"#;
        let read = Readiness::parse(http).unwrap();
        let config = read.config("127.0.0.1:9000".parse().unwrap());
        assert_eq!(config.address, "127.0.0.1:8080".parse().unwrap());
        assert_eq!(
            (config.period, config.failure_threshold),
            (Duration::from_secs(5), 7)
        );
        assert_eq!(
            (config.timeout, config.success_threshold),
            (Duration::from_secs(1), 1)
        );
        let Probe::Http {
            path,
            headers,
            https,
        } = config.probe
        else {
            panic!("{config:?}")
        };
        assert_eq!(
            (path.as_str(), headers["x-a"].to_str().unwrap(), https),
            ("/v2/health/ready", "1", false)
        );
        let https = Readiness::parse(r#"{"httpGet":{"port":8443,"scheme":"HTTPS"}}"#).unwrap();
        assert!(matches!(https.probe, Probe::Http { https: true, .. }));
        let tcp = Readiness::parse(r#"{"tcpSocket":{"port":7}}"#).unwrap();
        assert_eq!((tcp.probe, tcp.port), (Probe::Tcp, 7));
        let grpc =
            Readiness::parse(r#"{"grpc":{"port":9000,"service":"m"},"timeoutSeconds":0}"#).unwrap();
        assert_eq!(
            grpc.probe,
            Probe::Grpc {
                service: "m".to_owned()
            }
        );
        assert_eq!(grpc.timeout, Duration::from_secs(1));
    }

    #[test]
    fn what_cannot_be_asked_is_refused_with_what_can() {
        for (text, says) in [
            ("{", "as JSON"),
            ("{}", "exactly one"),
            (r#"{"exec":{"command":["x"]}}"#, "exactly one"),
            (
                r#"{"tcpSocket":{"port":1},"grpc":{"port":1}}"#,
                "exactly one",
            ),
            (r#"{"tcpSocket":{"port":"http"}}"#, "numbered ports"),
            (
                r#"{"httpGet":{"port":1,"scheme":"https"}}"#,
                "HTTP or HTTPS",
            ),
            (r#"{"httpGet":{"port":1,"path":"ready"}}"#, "absolute path"),
            (
                r#"{"httpGet":{"port":1,"httpHeaders":[{"name":"a b","value":"c"}]}}"#,
                "no HTTP header",
            ),
        ] {
            let error = Readiness::parse(text).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
