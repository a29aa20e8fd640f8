//! Chromium by its protocol for developers' tools, over a pipe: a message is JSON and ends with a zero byte.
//!
//! Written by hand because it is so little: no library, no port, no download. The browser ends with this.

use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;
use tempfile::TempDir;

/// For each answer and each event that is waited for: a cold browser on a busy machine takes seconds.
const PATIENCE: Duration = Duration::from_mins(1);

/// Names under which systems have it.
const NAMES: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "chrome"];

/// A browser with one open page.
pub(crate) struct Browser {
    child: Child,
    input: ChildStdin,
    messages: Receiver<Value>,
    session: Option<String>,
    last: u64,
    /// What came without being asked for.
    events: Vec<Value>,
    _profile: TempDir,
}

impl Browser {
    pub(crate) fn start() -> Self {
        let profile = tempfile::tempdir().unwrap();
        let name = std::env::var("CHROMIUM").unwrap_or_else(|_| installed());
        // The protocol's pipes are the files 3 and 4, which the shell makes of its own input and output.
        let mut child = Command::new("sh")
            .arg("-c")
            .arg("exec \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>&1")
            .arg("sh")
            .arg(name)
            .args([
                "--headless=new",
                "--remote-debugging-pipe",
                "--no-sandbox", // in containers, as root; the only pages are our own
                "--disable-dev-shm-usage",
                "--disable-gpu",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-extensions",
                "--hide-scrollbars",
            ])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.take().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let (sender, messages) = channel();
        thread::spawn(move || {
            let mut bytes = Vec::new();
            while output.read_until(0, &mut bytes).is_ok_and(|read| read > 0) {
                bytes.pop();
                let message = serde_json::from_slice(&bytes).unwrap();
                if sender.send(message).is_err() {
                    break;
                }
                bytes.clear();
            }
        });
        let mut browser = Self {
            child,
            input,
            messages,
            session: None,
            last: 0,
            events: Vec::new(),
            _profile: profile,
        };
        let page = browser.ask("Target.createTarget", &json!({"url": "about:blank"}));
        let attach = json!({"targetId": page["targetId"], "flatten": true});
        let attached = browser.ask("Target.attachToTarget", &attach);
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        for part in ["Page", "Runtime", "Network", "Log"] {
            browser.ask(&format!("{part}.enable"), &json!({}));
        }
        browser
    }

    /// Sends a command and waits for its answer.
    pub(crate) fn ask(&mut self, method: &str, params: &Value) -> Value {
        self.last += 1;
        let mut message = json!({"id": self.last, "method": method, "params": params});
        if let Some(session) = &self.session {
            message["sessionId"] = session.as_str().into();
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        self.input.write_all(&bytes).unwrap();
        loop {
            let message = self.next(method);
            if message["id"] == self.last {
                assert!(message["error"].is_null(), "{method}: {message}");
                return message["result"].clone();
            }
            self.events.push(message);
        }
    }

    fn next(&mut self, what: &str) -> Value {
        self.messages
            .recv_timeout(PATIENCE)
            .unwrap_or_else(|error| panic!("{what}: {error}"))
    }

    /// Opens a file as if it were the first one, with no event of an earlier one left.
    pub(crate) fn open(&mut self, file: &Path) {
        self.events.clear();
        let url = format!("file://{}", file.display());
        self.ask("Page.navigate", &json!({"url": url}));
        while !self
            .events
            .iter()
            .any(|e| e["method"] == "Page.loadEventFired")
        {
            let event = self.next("the page to load");
            self.events.push(event);
        }
    }

    /// The value of an expression.
    pub(crate) fn value(&mut self, expression: &str) -> Value {
        self.evaluate(expression, false)
    }

    /// The value of an expression, or of what it promises, which needs scripts to be allowed.
    fn evaluate(&mut self, expression: &str, is_promise: bool) -> Value {
        let params =
            json!({"expression": expression, "returnByValue": true, "awaitPromise": is_promise});
        let result = self.ask("Runtime.evaluate", &params);
        assert!(
            result["exceptionDetails"].is_null(),
            "{expression}: {result}"
        );
        result["result"]["value"].clone()
    }

    /// Size in CSS pixels, and the colours that the system asks for.
    pub(crate) fn show(&mut self, width: u32, height: u32, scheme: &str) {
        let size =
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.ask("Emulation.setDeviceMetricsOverride", &size);
        let colours = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.ask("Emulation.setEmulatedMedia", &json!({"features": colours}));
        self.settle();
    }

    /// Lets what follows by itself happen: charts take a new width, and scrolling is told, with one of the next frames.
    pub(crate) fn settle(&mut self) {
        self.evaluate(
            "new Promise((done) => { let left = 3; \
             const frame = () => { left -= 1; if (left) requestAnimationFrame(frame); else done(0); }; frame(); })",
            true,
        );
    }

    pub(crate) fn move_to(&mut self, x: f64, y: f64) {
        let params = json!({"type": "mouseMoved", "x": x, "y": y});
        self.ask("Input.dispatchMouseEvent", &params);
    }

    pub(crate) fn press(&mut self, key: &str) {
        for kind in ["rawKeyDown", "keyUp"] {
            let params = json!({"type": kind, "key": key, "code": key});
            self.ask("Input.dispatchKeyEvent", &params);
        }
    }

    /// What has been asked for from anywhere since the page was opened.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.of("Network.requestWillBeSent")
            .map(|params| params["request"]["url"].as_str().unwrap().to_owned())
            .collect()
    }

    /// Whatever the browser has complained about since then.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let console = self.of("Runtime.consoleAPICalled");
        let thrown = self.of("Runtime.exceptionThrown");
        let logged = self.of("Log.entryAdded");
        console
            .chain(thrown)
            .chain(logged)
            .map(ToString::to_string)
            .collect()
    }

    fn of<'a>(&'a self, method: &'a str) -> impl Iterator<Item = &'a Value> {
        let events = self.events.iter();
        events
            .filter(move |event| event["method"] == method)
            .map(|event| &event["params"])
    }

    /// The whole page as a picture.
    pub(crate) fn picture(&mut self, file: &Path) {
        use base64::Engine;
        let size = self.ask("Page.getLayoutMetrics", &json!({}))["cssContentSize"].clone();
        let clip =
            json!({"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1});
        let params = json!({"format": "png", "captureBeyondViewport": true, "clip": clip});
        let taken = self.ask("Page.captureScreenshot", &params);
        let bytes = base64::engine::general_purpose::STANDARD
            .decode(taken["data"].as_str().unwrap())
            .unwrap();
        fs::write(file, bytes).unwrap();
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Asked to, it takes the processes that it has started with it; its main process is gone for certain.
        self.last += 1;
        let close = format!("{{\"id\": {}, \"method\": \"Browser.close\"}}\0", self.last);
        let _asked = self.input.write_all(close.as_bytes());
        while self.messages.recv_timeout(Duration::from_secs(5)).is_ok() {}
        let _killed = self.child.kill();
        let _ended = self.child.wait();
    }
}

fn installed() -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    let has = |name: &&str| std::env::split_paths(&path).any(|folder| folder.join(name).exists());
    let found = NAMES.into_iter().find(has);
    found
        .expect("Chromium is missing: apt-get install chromium, or say where it is in CHROMIUM")
        .to_owned()
}
