#!/usr/bin/env python3
"""The table of a study of KServe on Minikube, measured again with Rouse: on this machine, or on a cluster.

    python3 loadtests/scenarios/study.py local
    python3 loadtests/scenarios/study.py cluster --target http://SERVICE/v1/models/sklearn-iris:predict --deployment NAMESPACE/sklearn-iris

Wakes the model from zero a few times, measures it warm, drives it from one replica to five, looks at what the pods take, and waits until
it is at zero again. See README.md beside this file for what each row is. Needs Python 3.10 or newer and nothing else; `rouse` has to be
built (`cargo build --release`), and on a cluster `kubectl` has to reach it.

Exit status: 0; 1 a step failed or a request was lost; 2 the arguments make no sense; 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target")
BODY = '{"instances": [[5.1, 3.5, 1.4, 0.2]]}'
PATH = "/v1/models/sklearn-iris:predict"
#: Replicas that the study saw under load.
MOST = 5
#: How long anything may take that is waited for, in seconds.
PATIENCE = 300.0
#: What the study measured: sklearn Iris on KServe behind Knative and Istio, on Minikube.
STUDY = {
    "warm mean": "120 ms",
    "warm p95": "180 ms",
    "cold start": "4.5 s",
    "throughput": "85 /s",
    "CPU of a pod": "0.2 cores",
    "memory of a pod": "256 MB",
    "replicas": "1 to 5, then 0",
}


class Failed(Exception):
    """A step that did not go as it should, in one line."""


@dataclass
class Usage:
    """What the pods of the model have taken so far: by pod, seconds of CPU, bytes of memory, and when that was (seconds)."""

    cpu: dict[str, float] = field(default_factory=dict)
    memory: dict[str, float] = field(default_factory=dict)
    at: dict[str, float] = field(default_factory=dict)

    def since(self, before: Usage) -> tuple[float, float] | None:
        """Cores and bytes of a pod on average, over the pods that are in both."""
        both = [pod for pod in self.cpu if pod in before.cpu and self.at[pod] > before.at[pod]]
        if not both:
            return None
        cores = [(self.cpu[pod] - before.cpu[pod]) / (self.at[pod] - before.at[pod]) for pod in both]
        return sum(cores) / len(both), sum(self.memory.get(pod, 0.0) for pod in both) / len(both)


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read(16 << 20).decode()


class Local:
    """`rouse local` with the Iris example, as child of this program."""

    #: Between the last request and zero: the stable window of 6 s, the grace period of 3 s, and time to end.
    idle = "14s"

    def __init__(self, rouse: Path, example: Path, environment: Path | None) -> None:
        paths = [str(environment)] if environment else []
        variables = os.environ | {"PATH": os.pathsep.join([*paths, os.environ.get("PATH", "")])}
        command = [str(rouse), "local", "-f", str(example / "iris.yaml"), "--admin", "127.0.0.1:0"]
        command += ["--annotation", "autoscaling.knative.dev/window=6s", "--set", "scale-to-zero-grace-period=3s"]
        self.process = subprocess.Popen(
            command, env=variables, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.said: list[str] = []
        self.metrics = self.address = ""
        # Its output is read to the end, or it would wait for us.
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        try:
            self.wait("it serves", lambda: self.address and self.metrics)
        except BaseException:
            self.end()
            raise

    def _read(self) -> None:
        for line in self.process.stdout or ():
            self.said = [*self.said[-50:], line.rstrip()]
            if found := re.match(r"sklearn-iris: (http://\S+)", line):
                self.address = found[1]
            if found := re.search(r"metrics: (http://\S+)", line):
                self.metrics = found[1]

    def wait(self, what: str, is_so) -> None:
        wait(what, is_so, lambda: self.process.poll() is not None and ("\n".join(self.said) or "without a word"))

    @property
    def target(self) -> str:
        return self.address + PATH

    def watched(self) -> list[str]:
        return ["--idle", self.idle]

    def replicas(self) -> tuple[int, int]:
        """Those that are wanted, and those that are ready."""
        text = get(self.metrics)
        value = lambda name: int(float((re.findall(rf"^{name}{{[^}}]*}} (\S+)", text, re.M) or ["0"])[0]))
        return value("rouse_autoscaler_desired_replicas"), value("rouse_autoscaler_ready_replicas")

    def usage(self) -> Usage:
        """Each replica is a child of a small process of Rouse, which is a child of `rouse`: what is below that is the model."""
        usage, parents = Usage(), {}
        for entry in Path("/proc").iterdir():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split() if entry.name.isdigit() else None
            except OSError:
                continue
            if fields:
                parents[int(entry.name)] = (int(fields[1]), (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"))
        for process, (parent, cpu) in parents.items():
            while parent in parents and parents[parent][0] != self.process.pid:
                parent = parents[parent][0]
            if parent not in parents:
                continue
            try:
                rollup = Path(f"/proc/{process}/smaps_rollup").read_text()
            except OSError:
                continue
            pod = str(parent)
            usage.cpu[pod] = usage.cpu.get(pod, 0.0) + cpu
            # One that has just ended has none.
            kilobytes = re.search(r"^Pss:\s+(\d+)", rollup, re.M)
            usage.memory[pod] = usage.memory.get(pod, 0.0) + (int(kilobytes[1]) * 1024 if kilobytes else 0)
            usage.at[pod] = time.monotonic()
        return usage

    def end(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()


class Cluster:
    """A Deployment that Rouse, or something else, scales."""

    def __init__(self, target: str, deployment: str, kubectl: str) -> None:
        self.target, self.kubectl = target, kubectl
        self.namespace, _, self.name = deployment.partition("/")
        self.deployment = deployment
        labels = self.read("get", "deployment", self.name, "-o", "json")["spec"]["selector"].get("matchLabels", {})
        self.selector = ",".join(f"{key}={value}" for key, value in labels.items())

    def read(self, *words: str) -> dict:
        return json.loads(self.text(*words))

    def text(self, *words: str) -> str:
        done = subprocess.run([self.kubectl, "-n", self.namespace, *words], capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if done.returncode:
            raise Failed(f"kubectl {' '.join(words)}: {done.stderr.strip()}")
        return done.stdout

    def wait(self, what: str, is_so) -> None:
        wait(what, is_so, lambda: False)

    def watched(self) -> list[str]:
        return ["--deployment", self.deployment]

    def replicas(self) -> tuple[int, int]:
        found = self.read("get", "deployment", self.name, "-o", "json")
        return found["spec"].get("replicas", 1), found.get("status", {}).get("readyReplicas", 0)

    def usage(self) -> Usage:
        """By the kubelet's metrics of resources, which are stable (kubernetes.io, "Resource metrics pipeline") and say when they were taken."""
        usage = Usage()
        pods = self.read("get", "pods", "-l", self.selector, "-o", "json")["items"]
        names = {pod["metadata"]["name"] for pod in pods}
        for node in {pod["spec"].get("nodeName") for pod in pods} - {None}:
            metrics = self.text("get", "--raw", f"/api/v1/nodes/{node}/proxy/metrics/resource")
            for metric, labels, value, at in re.findall(r"^pod_(\w+){([^}]*)} (\S+) (\d+)$", metrics, re.M):
                pod = dict(re.findall(r'(\w+)="([^"]*)"', labels))
                name = pod.get("pod", "")
                if pod.get("namespace") != self.namespace or name not in names:
                    continue
                if metric == "cpu_usage_seconds_total":
                    usage.cpu[name], usage.at[name] = float(value), int(at) / 1e3
                elif metric == "memory_working_set_bytes":
                    usage.memory[name] = float(value)
        return usage

    def end(self) -> None:
        """It was there before."""


def wait(what: str, is_so, has_ended) -> None:
    until = time.monotonic() + PATIENCE
    while not is_so():
        if why := has_ended():
            raise Failed(f"waited until {what}, and rouse has ended:\n{why}")
        if time.monotonic() > until:
            raise Failed(f"waited {PATIENCE:.0f} s until {what}")
        time.sleep(0.2)


class Tester:
    """`rouse load`."""

    def __init__(self, rouse: Path) -> None:
        self.rouse = rouse

    def run(self, *words: str) -> dict:
        with tempfile.NamedTemporaryFile(suffix=".json") as report:
            command = [str(self.rouse), "load", *words, "-H", "Content-Type: application/json", "--body", BODY]
            command += ["--expect-json", "/predictions", "--json", report.name]
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, timeout=3 * 3600
            )
            if done.returncode:
                raise Failed(f"rouse load {' '.join(words)}: exit status {done.returncode}: {done.stderr.strip()}")
            return json.loads(Path(report.name).read_text())


def lost(reports: list[dict]) -> int:
    return sum(report["summary"]["error_count"] + report["summary"]["unfinished"] for report in reports)


def measure(site: Local | Cluster, tester: Tester, wakes: int, seconds: int) -> dict[str, str]:
    say = lambda text: print(text, file=sys.stderr, flush=True)
    say(f"cold: {wakes} wakes from zero")
    cold = tester.run("cold", "--target", f"iris={site.target}", *site.watched(), "-n", str(wakes))
    classes = {one["kind"]: one["latency"] for one in cold["cold"]["classes"]}
    proven = classes.get("cold") or classes.get("first_on_node")
    if not proven:
        raise Failed("no wake is proven to have been cold: " + "; ".join(one["reason"] for one in cold["cold"]["wakes"]))
    owners = {one["owner"]: one["latency"]["p50"] for one in cold["cold"]["owners"]}
    say("warm: one request at a time")
    warm = tester.run("--connections", "1", "--warmup", "1s", "--duration", "5s", site.target)
    say(f"load: 20 requests at once, until {MOST} replicas are ready")
    ramp, seen, until = [], [site.replicas()[1]], time.monotonic() + PATIENCE
    while seen[-1] < MOST:
        ramp.append(tester.run("--connections", "20", "--duration", "2s", site.target))
        seen.append(site.replicas()[1])
        if time.monotonic() > until:
            raise Failed(f"waited {PATIENCE:.0f} s until {MOST} replicas are ready; ready were {seen}")
    say(f"load: the same for {seconds} s, measured")
    before = site.usage()
    steady = tester.run("--connections", "20", "--duration", f"{seconds}s", site.target)
    usage = site.usage().since(before)
    say("rest: until there is none")
    stopped = time.monotonic()
    site.wait("it is at zero", lambda: site.replicas() == (0, 0))
    to_zero = time.monotonic() - stopped
    if failures := lost([cold, warm, *ramp, steady]):
        raise Failed(f"{failures} requests failed; none may")
    latency, milliseconds = warm["summary"]["latency"], lambda seconds: f"{seconds * 1e3:.2f} ms"
    parts = ", ".join(f"{owner} {milliseconds(p50)}" for owner, p50 in owners.items() if owner in ("control", "kubernetes", "model"))
    return {
        "warm mean": milliseconds(latency["mean"]),
        "warm p95": milliseconds(latency["p95"]),
        "cold start": f"{proven['p50']:.2f} s (median of {proven['count']} proven; {parts})",
        "throughput": f"{steady['summary']['throughput']:.0f} /s",
        "CPU of a pod": f"{usage[0]:.2f} cores" if usage else "not told",
        "memory of a pod": f"{usage[1] / 1e6:.0f} MB" if usage else "not told",
        "replicas": f"{min(seen)} to {max(seen)}, then 0 after {to_zero:.0f} s",
    }


def table(ours: dict[str, str]) -> str:
    rows = [("", "study: KServe, Knative, Istio", "here"), *((name, STUDY[name], ours[name]) for name in STUDY)]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "|".join(" --- " for _ in widths) + "|", *lines[1:]])


def environment(folder: Path | None, example: Path) -> Path:
    """The folder with `python3` of an environment that has the example's packages, made if there is none."""
    folder = folder or TARGET / "demo" / "venv"
    python = folder / "bin" / "python3"
    if not python.exists():
        print(f"making {folder}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", "-r", str(example / "requirements.txt")], check=True)
    return folder / "bin"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("where", choices=["local", "cluster"])
    parser.add_argument("--rouse", type=Path, default=TARGET / "release" / "rouse", help="the program")
    parser.add_argument("--wakes", type=int, default=5, help="cold starts, 1 to 1000 [5]")
    parser.add_argument("--seconds", type=int, default=30, help="how long throughput and pods are measured, 5 to 3600 [30]")
    parser.add_argument("--example", type=Path, default=ROOT / "examples" / "iris", help="local: folder of the example")
    parser.add_argument("--venv", type=Path, help="local: its Python environment [target/demo/venv, made if it is not there]")
    parser.add_argument("--target", help="cluster: where the model answers")
    parser.add_argument("--deployment", help="cluster: NAMESPACE/NAME")
    parser.add_argument("--kubectl", default="kubectl", help="cluster: the program")
    parser.add_argument("--json", type=Path, help="write the rows to this file, too")
    args = parser.parse_args()
    if not 1 <= args.wakes <= 1000 or not 5 <= args.seconds <= 3600:
        parser.error("--wakes is 1 to 1000 and --seconds 5 to 3600")
    if not args.rouse.is_file():
        parser.error(f"--rouse: {args.rouse} is not there; cargo build --release makes it")
    if args.where == "cluster" and not (args.target and "/" in (args.deployment or "")):
        parser.error("a cluster needs --target URL and --deployment NAMESPACE/NAME")
    site = None
    try:
        if args.where == "local":
            site = Local(args.rouse, args.example, environment(args.venv, args.example))
        else:
            site = Cluster(args.target, args.deployment, args.kubectl)
        ours = measure(site, Tester(args.rouse), args.wakes, args.seconds)
    except (Failed, OSError, LookupError, ValueError, subprocess.SubprocessError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        if site:
            site.end()
    print(table(ours))
    if args.json:
        args.json.write_text(json.dumps({"study": STUDY, "here": ours}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
