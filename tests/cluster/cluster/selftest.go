package main

import (
	"bytes"
	_ "embed"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

//go:embed manifests/selftest.yaml
var selftestManifests string

//go:embed manifests/selftest-webhook.yaml
var webhookManifest string

// earlyServiceIP is in the lower part of the range, from which none is given away by itself.
const earlyServiceIP = "10.96.0.77"

const selftestImage = "selftest:1"

// trial is one self-test: a cluster of its own, driven through the same command line that everybody uses.
type trial struct {
	places  places
	program string
	// containers are those that ran at some time, whose control groups must go.
	containers []string
	passed     int
	failed     int
}

// selftest tries what the tests of Rouse rely on. Its last line counts, as a test runner's does.
func selftest(p places) error {
	program, err := os.Executable()
	if err != nil {
		return err
	}
	p.State = filepath.Join(p.Cache, "selftest")
	trial := &trial{places: p, program: program}
	if err := down(p); err != nil {
		return err
	}
	before, err := traces()
	if err != nil {
		return err
	}
	trial.run(before)
	fmt.Printf("\n%d passed, %d failed\n", trial.passed, trial.failed)
	if trial.failed > 0 {
		return errors.New("the cluster does not do what tests rely on")
	}
	return nil
}

func (t *trial) run(before map[string]string) {
	if !t.check("boots", func() error { return t.passThrough("up", "--owner", strconv.Itoa(os.Getpid())) }) {
		return
	}
	network := ""
	t.check("has a network of its own", func() (err error) {
		network, err = t.node("readlink", "/proc/self/ns/net")
		if own, _ := os.Readlink("/proc/self/ns/net"); err == nil && strings.TrimSpace(network) == own {
			err = errors.New("it is in the machine's")
		}
		return err
	})
	t.checkCluster()
	t.checkComponents()
	t.see()
	t.check("ends", func() error { return t.passThrough("down") })
	t.check("leaves no process, mount, namespace, control group or setting behind", func() error { return t.left(before, network) })

	t.check("boots again after its first process was killed", func() error {
		if err := t.passThrough("up"); err != nil {
			return err
		}
		running, err := find(t.places)
		if err != nil {
			return err
		}
		t.see()
		first, err := os.FindProcess(running.PID)
		if err != nil {
			return err
		}
		if err := first.Kill(); err != nil {
			return err
		}
		if err := t.eventually(t.gone); err != nil {
			return err
		}
		return t.passThrough("up")
	})
	t.check("ends with its owner", t.endsWithOwner)
	t.check("ends when up is killed", t.endsWithUp)
	t.check("knows its containers", func() error {
		if len(t.containers) < 6 {
			return fmt.Errorf("it saw only %d", len(t.containers))
		}
		return nil
	})
	t.check("leaves nothing behind then either", func() error { return t.left(before, network) })
}

// see notes the containers that are there.
func (t *trial) see() {
	if running, err := find(t.places); err == nil {
		t.containers = append(t.containers, containers(running.outside(""))...)
	}
}

func (t *trial) checkCluster() {
	t.check("loads an image made of executables", func() error {
		return t.passThrough("load-image", "--name", selftestImage, "--binary", "cluster="+t.program)
	})
	t.check("takes manifests", func() error {
		_, err := t.nodeInput(selftestManifests, "kubectl", "apply", "-f", "-")
		return err
	})
	for round := 1; round <= 2; round++ {
		t.check(fmt.Sprintf("scales 0 to 1, round %d", round), func() error { return t.scale("web", 1) })
		t.check(fmt.Sprintf("scales 1 to 0, round %d", round), func() error { return t.scale("web", 0) })
	}
	t.check("scales 0 to 2", func() error { return t.scale("web", 2) })
	t.check("runs a client pod", func() error { return t.rollout("client") })
	address := ""
	t.check("routes a Service's cluster IP from the node", func() (err error) {
		service := ""
		if service, err = t.node("kubectl", "get", "service", "web", "-o", "jsonpath={.spec.clusterIP}"); err != nil {
			return err
		}
		return t.eventually(func() error { _, err := t.get("http://" + service + "/"); return err })
	})
	t.check("a connection to a cluster IP that kube-proxy does not know yet waits for it", t.early)
	t.check("gives pods addresses", func() (err error) {
		address, err = t.node("kubectl", "get", "pod", "-l", "app=client", "-o", "jsonpath={.items[0].status.podIP}")
		if err == nil && !strings.HasPrefix(address, "10.244.") {
			err = fmt.Errorf("its address is %q", address)
		}
		return err
	})
	inside := func(query string) (string, error) { return t.get("http://" + address + ":8080" + query) }
	t.check("resolves and routes a Service by its name from a pod, and the server sees the pod's address", func() error {
		return t.eventually(func() error {
			seen, err := inside("/fetch?url=http://web.default.svc/")
			if err == nil && seen != address {
				err = fmt.Errorf("the server saw %s, not %s", seen, address)
			}
			return err
		})
	})
	t.check("a pod without rights is refused by kubernetes.default.svc", func() error {
		_, err := inside("/api?host=kubernetes.default.svc")
		if err == nil || !strings.Contains(err.Error(), "403") {
			return fmt.Errorf("expected 403: %v", err)
		}
		return nil
	})
	t.check("a pod with a Role may ask kubernetes.default.svc", func() error {
		if _, err := t.node("kubectl", "create", "rolebinding", "view", "--clusterrole=view", "--serviceaccount=default:default"); err != nil {
			return err
		}
		return t.eventually(func() error { _, err := inside("/api?host=kubernetes.default.svc"); return err })
	})
	t.check("and by the variables in its environment", func() error { _, err := inside("/api"); return err })
	t.check("starts a native sidecar before the container it serves", func() error {
		if err := t.rollout("sidecar"); err != nil {
			return err
		}
		log, err := t.node("kubectl", "logs", "deployment/sidecar", "-c", "main")
		if err == nil && !strings.Contains(log, "the sidecar was there first") {
			err = fmt.Errorf("its log says %q", log)
		}
		return err
	})
	t.check("runs commands in containers", func() error {
		_, err := t.node("kubectl", "exec", "deployment/client", "--", "cluster", "help")
		return err
	})
	t.check("asks an admission webhook in a pod", t.webhook)
	t.check("enforces PodSecurity", func() error {
		if _, err := t.node("kubectl", "create", "namespace", "restricted"); err != nil {
			return err
		}
		if _, err := t.node("kubectl", "label", "namespace", "restricted", "pod-security.kubernetes.io/enforce=restricted"); err != nil {
			return err
		}
		_, err := t.node("kubectl", "-n", "restricted", "run", "root", "--image="+selftestImage, "--privileged")
		if err == nil || !strings.Contains(err.Error(), "violates PodSecurity") {
			return fmt.Errorf("expected a refusal: %v", err)
		}
		return nil
	})
	t.check("fails to start a pod whose image is not there", func() error {
		if _, err := t.node("kubectl", "run", "missing", "--image=rouse.test/missing:1"); err != nil {
			return err
		}
		return t.eventually(func() error {
			reason, err := t.node("kubectl", "get", "pod", "missing", "-o", "jsonpath={.status.containerStatuses[0].state.waiting.reason}")
			if err == nil && reason != "ImagePullBackOff" && reason != "ErrImagePull" {
				err = fmt.Errorf("it waits because of %q", reason)
			}
			return err
		})
	})
	t.check("limits the memory of a container", func() error {
		running, err := find(t.places)
		if err != nil {
			return err
		}
		for _, member := range running.members() {
			text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", member.pid))
			if _, path, found := strings.Cut(string(text), ":memory:"); found {
				path, _, _ = strings.Cut(path, "\n")
				limit, _ := os.ReadFile("/sys/fs/cgroup/memory" + path + "/memory.limit_in_bytes")
				if strings.TrimSpace(string(limit)) == "67108864" {
					return nil
				}
			} else if _, path, found := strings.Cut(string(text), "0::"); found {
				path, _, _ = strings.Cut(path, "\n")
				limit, _ := os.ReadFile("/sys/fs/cgroup" + path + "/memory.max")
				if strings.TrimSpace(string(limit)) == "67108864" {
					return nil
				}
			}
		}
		return errors.New("no process has the limit that the client's container asks for")
	})
	t.check("keeps an audit log", func() error {
		text, err := os.ReadFile(t.places.log("audit"))
		if err == nil && (!bytes.Contains(text, []byte(`"verb":"patch"`)) || !bytes.Contains(text, []byte("/deployments/web/scale"))) {
			err = errors.New("the changes of scale are not in it")
		}
		return err
	})
}

func (t *trial) checkComponents() {
	t.check("brings back an apiserver that was stopped", func() error {
		if err := t.passThrough("stop", "apiserver"); err != nil {
			return err
		}
		if _, err := t.node("kubectl", "--request-timeout=2s", "get", "nodes"); err == nil {
			return errors.New("it still answers")
		}
		if err := t.passThrough("cont", "apiserver"); err != nil {
			return err
		}
		_, err := t.node("kubectl", "get", "nodes")
		return err
	})
	t.check("thaws an apiserver that was frozen", func() error {
		if err := t.passThrough("freeze", "apiserver"); err != nil {
			return err
		}
		if _, err := t.node("kubectl", "--request-timeout=1s", "get", "nodes"); err == nil {
			return errors.New("it still answers")
		}
		if err := t.passThrough("cont", "apiserver"); err != nil {
			return err
		}
		_, err := t.node("kubectl", "get", "nodes")
		return err
	})
	for _, name := range []string{"etcd", "containerd", "controller-manager", "scheduler", "kubelet", "proxy"} {
		t.check("brings back a killed "+name, func() error {
			if err := t.passThrough("kill", name); err != nil {
				return err
			}
			return t.passThrough("cont", name)
		})
	}
	t.check("scales after all of that", func() error {
		if err := t.scale("web", 0); err != nil {
			return err
		}
		return t.scale("web", 1)
	})
}

// check runs one step and says how it went. The later ones run even so, to tell everything that is wrong at once.
func (t *trial) check(name string, step func() error) bool {
	start := time.Now()
	err := step()
	if err != nil {
		t.failed++
		fmt.Printf("FAILED  %s (%s): %v\n", name, since(start), err)
		return false
	}
	t.passed++
	fmt.Printf("ok      %s (%s)\n", name, since(start))
	return true
}

// eventually tries again for a while: kube-proxy and others follow what happens with a delay.
func (t *trial) eventually(try func() error) error {
	const long = 15 * time.Second
	for start := time.Now(); ; time.Sleep(100 * time.Millisecond) {
		if err := try(); err == nil || time.Since(start) > long {
			return err
		}
	}
}

func (t *trial) command(args ...string) *exec.Cmd {
	command := exec.Command(t.program, append([]string{"--state", t.places.State}, args...)...)
	command.Env = append(os.Environ(), "ROUSE_CLUSTER_SOURCE="+t.places.Source, "ROUSE_CLUSTER_CACHE="+t.places.Cache)
	return command
}

// passThrough runs this program with its output on ours.
func (t *trial) passThrough(args ...string) error {
	command := t.command(args...)
	command.Stdout, command.Stderr = os.Stdout, os.Stderr
	return command.Run()
}

// node runs a command in the node's network and returns what it prints.
func (t *trial) node(args ...string) (string, error) { return t.nodeInput("", args...) }

func (t *trial) nodeInput(input string, args ...string) (string, error) {
	command := t.command(append([]string{"exec", "--"}, args...)...)
	command.Stdin = strings.NewReader(input)
	var output, complaint bytes.Buffer
	command.Stdout, command.Stderr = &output, &complaint
	if err := command.Run(); err != nil {
		return "", fmt.Errorf("%s: %w: %s%s", strings.Join(args, " "), err, output.String(), complaint.String())
	}
	return output.String(), nil
}

// get fetches a page from within the node's network.
func (t *trial) get(url string) (string, error) {
	return t.node(t.program, podArgument, "get", url)
}

func (t *trial) scale(name string, replicas int) error {
	if _, err := t.node("kubectl", "scale", "deployment", name, "--replicas="+strconv.Itoa(replicas)); err != nil {
		return err
	}
	if replicas == 0 {
		_, err := t.node("kubectl", "wait", "--for=delete", "pod", "-l", "app="+name, "--timeout=30s")
		return err
	}
	return t.rollout(name)
}

func (t *trial) rollout(name string) error {
	_, err := t.node("kubectl", "rollout", "status", "deployment", name, "--timeout=30s")
	return err
}

// early connects once to a Service while kube-proxy is frozen, and lets kube-proxy go on a moment later.
func (t *trial) early() error {
	if err := t.command("freeze", "proxy").Run(); err != nil {
		return err
	}
	_, err := t.node("kubectl", "create", "service", "clusterip", "early", "--tcp=80:8080", "--clusterip="+earlyServiceIP)
	if err == nil {
		_, err = t.node("kubectl", "set", "selector", "service", "early", "app=web")
	}
	answer := make(chan error, 1)
	go func() { _, err := t.get("http://" + earlyServiceIP + "/"); answer <- err }()
	time.Sleep(500 * time.Millisecond)
	return errors.Join(err, t.command("cont", "proxy").Run(), <-answer)
}

func (t *trial) webhook() error {
	authority, err := newAuthority()
	if err != nil {
		return err
	}
	pair, err := authority.server("webhook", []string{"webhook.default.svc"})
	if err != nil {
		return err
	}
	text := webhookManifest
	for name, value := range map[string][]byte{"CA_BUNDLE": authority.pem, "THE_CERTIFICATE": pair.certificate, "THE_KEY": pair.key} {
		text = strings.ReplaceAll(text, name, base64.StdEncoding.EncodeToString(value))
	}
	if _, err := t.nodeInput(text, "kubectl", "apply", "-f", "-"); err != nil {
		return err
	}
	if err := t.rollout("webhook"); err != nil {
		return err
	}
	return t.eventually(func() error {
		labels, err := t.node("kubectl", "run", "mutant", "-l", "app=mutant", "--dry-run=server", "--image="+selftestImage,
			"-o", "jsonpath={.metadata.labels}")
		if err == nil && !strings.Contains(labels, mutated) {
			err = fmt.Errorf("the pod was not changed: %s", labels)
		}
		return err
	})
}

func (t *trial) endsWithOwner() error {
	if err := t.passThrough("down"); err != nil {
		return err
	}
	owner := exec.Command("sleep", "120")
	if err := owner.Start(); err != nil {
		return err
	}
	err := t.passThrough("up", "--owner", strconv.Itoa(owner.Process.Pid))
	t.see()
	_ = owner.Process.Kill()
	_ = owner.Wait()
	if err != nil {
		return err
	}
	return t.eventually(t.gone)
}

func (t *trial) endsWithUp() error {
	if err := down(t.places); err != nil {
		return err
	}
	up := t.command("up")
	if err := up.Start(); err != nil {
		return err
	}
	err := t.eventually(func() error {
		_, err := os.Stat(t.places.log("kubelet"))
		return err
	})
	_ = up.Process.Kill()
	_ = up.Wait()
	if err != nil {
		return err
	}
	if err := t.eventually(t.gone); err != nil {
		return err
	}
	return down(t.places)
}

func (t *trial) gone() error {
	if running, err := find(t.places); err == nil {
		return fmt.Errorf("process %d is still there", running.PID)
	}
	return nil
}

// traces is what a cluster could leave on a machine, before there is one.
func traces() (map[string]string, error) {
	found := map[string]string{}
	for _, file := range []string{
		"/proc/self/mountinfo", "/proc/sys/kernel/panic", "/proc/sys/kernel/panic_on_oops",
		"/proc/sys/vm/overcommit_memory", "/proc/sys/net/ipv4/ip_forward",
	} {
		text, err := os.ReadFile(file)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		found[file] = string(text)
	}
	for _, folder := range []string{"/run/netns", "/var/lib", "/var/log", "/run/containerd", "/opt"} {
		entries, _ := os.ReadDir(folder)
		found[folder] = fmt.Sprint(entries)
	}
	return found, nil
}

// left compares with the traces from before, and looks for processes in the cluster's network.
func (t *trial) left(before map[string]string, network string) error {
	after, err := traces()
	if err != nil {
		return err
	}
	var all []error
	for name, was := range before {
		if after[name] != was {
			all = append(all, fmt.Errorf("%s was:\n%s\nand is:\n%s", name, was, after[name]))
		}
	}
	processes, _ := filepath.Glob("/proc/[0-9]*/ns/net")
	for _, process := range processes {
		if link, err := os.Readlink(process); err == nil && link == strings.TrimSpace(network) {
			all = append(all, fmt.Errorf("%s is in the cluster's network", process))
		}
	}
	for _, name := range t.containers {
		for _, pattern := range []string{"/sys/fs/cgroup/k8s.io/", "/sys/fs/cgroup/*/k8s.io/"} {
			groups, _ := filepath.Glob(pattern + name)
			for _, group := range groups {
				all = append(all, fmt.Errorf("control group %s", group))
			}
		}
	}
	return errors.Join(all...)
}
