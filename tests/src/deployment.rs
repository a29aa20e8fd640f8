//! Deployments and Services written as people write them.

use std::fmt::Write as _;

/// A Deployment with one container, and its Service.
#[derive(Clone, Debug)]
pub struct Deployment {
    name: String,
    command: Vec<String>,
    annotations: Vec<(String, String)>,
    ports: Vec<u16>,
    ready_path: Option<&'static str>,
    replicas: u32,
    grace: u32,
    shift: u16,
}

impl Deployment {
    /// Starts at zero, with one port, ready when its port is open.
    pub fn new(name: &str, command: &[&str]) -> Self {
        Self {
            name: name.to_owned(),
            command: command.iter().map(|&part| part.to_owned()).collect(),
            annotations: Vec::new(),
            ports: vec![8080],
            ready_path: None,
            replicas: 0,
            grace: 30,
            shift: 0,
        }
    }

    /// With further arguments.
    #[must_use]
    pub fn args(mut self, args: &[&str]) -> Self {
        self.command.extend(args.iter().map(|&arg| arg.to_owned()));
        self
    }

    /// With an annotation; a key without a group is one of Knative's.
    #[must_use]
    pub fn annotate(mut self, key: &str, value: &str) -> Self {
        let key = if key.contains('/') {
            key.to_owned()
        } else {
            format!("autoscaling.knative.dev/{key}")
        };
        self.annotations.push((key, value.to_owned()));
        self
    }

    /// With these container ports, each with a port of the Service.
    #[must_use]
    pub fn ports(mut self, ports: &[u16]) -> Self {
        ports.clone_into(&mut self.ports);
        self
    }

    /// Ready when this path of the first port says so.
    #[must_use]
    pub fn ready_path(mut self, path: &'static str) -> Self {
        self.ready_path = Some(path);
        self
    }

    /// With this many replicas from the start.
    #[must_use]
    pub fn replicas(mut self, replicas: u32) -> Self {
        self.replicas = replicas;
        self
    }

    /// With this many seconds between SIGTERM and SIGKILL.
    #[must_use]
    pub fn grace(mut self, seconds: u32) -> Self {
        self.grace = seconds;
        self
    }

    /// With the ports of its Service so much above the container's: on one machine each Service needs its own.
    #[must_use]
    pub fn shifted(mut self, by: u16) -> Self {
        self.shift = by;
        self
    }

    /// Both documents. Rust's notation of plain strings is YAML's too.
    pub fn yaml(&self) -> String {
        let Self { name, .. } = self;
        let mut text =
            format!("apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: {name}\n");
        if !self.annotations.is_empty() {
            text.push_str("  annotations:\n");
        }
        for (key, value) in &self.annotations {
            line(&mut text, format_args!("    {key}: {value:?}"));
        }
        line(
            &mut text,
            format_args!(
                "spec:\n  replicas: {}\n  selector: {{matchLabels: {{app: {name}}}}}\n  template:\n    \
                 metadata: {{labels: {{app: {name}}}}}\n    spec:\n      terminationGracePeriodSeconds: {}\n      \
                 containers:\n        - name: model\n          command: {:?}\n          ports:",
                self.replicas, self.grace, self.command
            ),
        );
        for port in &self.ports {
            line(
                &mut text,
                format_args!("            - containerPort: {port}"),
            );
        }
        if let Some(path) = self.ready_path {
            line(
                &mut text,
                format_args!(
                    "          readinessProbe: {{httpGet: {{path: {path}, port: {}}}}}",
                    self.ports[0]
                ),
            );
        }
        line(
            &mut text,
            format_args!(
                "---\napiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\nspec:\n  selector: {{app: {name}}}\n  \
                 ports:"
            ),
        );
        for port in &self.ports {
            line(
                &mut text,
                format_args!(
                    "    - {{name: p{port}, port: {}, targetPort: {port}}}",
                    port + self.shift
                ),
            );
        }
        text
    }
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(text, "{line}").expect("a string takes everything");
}
