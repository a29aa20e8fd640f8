package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
	"unsafe"
)

const (
	// bootPatience is far more than a boot takes on a machine that is busy building.
	bootPatience = 3 * time.Minute
	pollEvery    = 50 * time.Millisecond
	systemPath   = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	// planVariable names the plan's file to the processes inside.
	planVariable = "ROUSE_CLUSTER_PLAN"
	// ownedVariable is set if there is an owner to watch.
	ownedVariable = "ROUSE_CLUSTER_OWNED"
)

// event is a line from the node to up.
type event struct {
	Phase   string  `json:"phase,omitempty"`
	Seconds float64 `json:"seconds,omitempty"`
	Ready   bool    `json:"ready,omitempty"`
	Failed  string  `json:"failed,omitempty"`
}

// runNode boots the node and then serves orders until it is ended.
func runNode() error {
	plan, err := readPlan(os.Getenv(planVariable))
	if err != nil {
		return err
	}
	syscall.CloseOnExec(eventsFD)
	up := os.NewFile(eventsFD, "events")
	node := &node{plan: plan, supervisor: newSupervisor(plan), events: up, start: time.Now()}
	go node.watchLifeline()
	if os.Getenv(ownedVariable) != "" {
		syscall.CloseOnExec(ownerFD)
		go node.watchOwner()
	}
	if err := node.boot(); err != nil {
		report("boot failed: %v", err)
		node.tell(event{Failed: err.Error()})
		node.end()
		return err
	}
	node.ready()
	node.watchRecord() // for ever
	return nil
}

type node struct {
	plan       plan
	supervisor *supervisor
	start      time.Time

	mutex  sync.Mutex
	events io.WriteCloser
	done   bool
	ending bool
}

func (n *node) tell(event event) {
	n.mutex.Lock()
	defer n.mutex.Unlock()
	_, _ = n.events.Write(append(marshal(event), '\n'))
}

// phase says how long something took.
func (n *node) phase(name string, start time.Time) {
	report("%s after %s", name, since(start))
	n.tell(event{Phase: name, Seconds: time.Since(start).Seconds()})
}

func (n *node) boot() error {
	ctx, cancel := context.WithTimeout(context.Background(), bootPatience)
	defer cancel()
	s := n.supervisor

	if err := prepareMounts(); err != nil {
		return err
	}
	if err := prepareNetwork(); err != nil {
		return err
	}
	ca, admin, err := writePKI(pkiFolder, n.plan.Places.kubeconfig())
	if err != nil {
		return err
	}
	if err := writeConfigs(n.plan); err != nil {
		return err
	}
	if err := n.serveOrders(); err != nil {
		return err
	}
	n.phase("namespaces, network, certificates", n.start)

	start := time.Now()
	if err := s.start("etcd", "apiserver", "containerd"); err != nil {
		return err
	}
	images := make(chan error, 1)
	go func() { images <- n.loadImages(ctx, start) }()
	if err := s.wait(ctx, "apiserver"); err != nil {
		return err
	}
	n.phase("apiserver answers /readyz", start)
	if err := <-images; err != nil {
		return err
	}

	start = time.Now()
	if err := s.start("controller-manager", "kubelet", "scheduler", "proxy"); err != nil {
		return err
	}
	api, err := newAPI(ca, admin)
	if err != nil {
		return err
	}
	for _, manifest := range manifests {
		err := s.until(ctx, manifest.path, func(ctx context.Context) error { return api.apply(ctx, manifest) })
		if err != nil {
			return err
		}
	}
	for _, wait := range []struct {
		name string
		ask  func(context.Context) error
	}{
		{"node is Ready", api.nodeReady},
		{"kube-proxy has synced", gets("http://" + nodeIP + ":10256/healthz")},
		{"pods may use the default service account", api.has("/api/v1/namespaces/default/serviceaccounts/default")},
		{"CoreDNS is available", api.dnsAvailable},
		{"a Service name resolves through a cluster IP", resolves},
	} {
		if err := s.until(ctx, wait.name, wait.ask); err != nil {
			return fmt.Errorf("waiting until %s: %w", wait.name, err)
		}
		n.phase(wait.name, start)
	}
	return nil
}

func (n *node) loadImages(ctx context.Context, start time.Time) error {
	if err := n.supervisor.wait(ctx, "containerd"); err != nil {
		return err
	}
	n.phase("containerd answers", start)
	for _, image := range n.plan.Built.Images {
		if err := importImage(n.plan.Built.Bin, containerdSocket, image); err != nil {
			return err
		}
	}
	n.phase("images are loaded", start)
	return nil
}

// importImage hands an OCI archive to containerd.
func importImage(bin, socket, file string) error {
	command := exec.Command(filepath.Join(bin, "ctr"), "--address", socket, "--namespace", "k8s.io", "images", "import", file)
	if output, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("import %s: %w: %s", file, err, output)
	}
	return nil
}

// resolves asks the cluster's DNS, as a pod would, through the cluster IP of its Service.
func resolves(ctx context.Context) error {
	// What is asked before kube-proxy knows the pod is lost, so it is asked again soon.
	ctx, cancel := context.WithTimeout(ctx, 250*time.Millisecond)
	defer cancel()
	resolver := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		var dialer net.Dialer
		return dialer.DialContext(ctx, network, net.JoinHostPort(dnsServiceIP, "53"))
	}}
	found, err := resolver.LookupHost(ctx, "kubernetes.default.svc."+clusterDomain+".")
	if err != nil {
		return err
	}
	if len(found) != 1 || found[0] != apiServiceIP {
		return fmt.Errorf("kubernetes.default resolves to %v", found)
	}
	return nil
}

func (n *node) ready() {
	n.supervisor.mutex.Lock()
	n.supervisor.booted = true
	n.supervisor.mutex.Unlock()
	n.mutex.Lock()
	n.done = true
	n.mutex.Unlock()
	report("ready after %s", since(n.start))
	n.tell(event{Ready: true, Seconds: time.Since(n.start).Seconds()})
	n.mutex.Lock()
	n.events.Close()
	n.mutex.Unlock()
}

// watchLifeline ends the cluster if up goes away before the cluster is ready: nobody would know of it.
func (n *node) watchLifeline() {
	_, _ = bufio.NewReader(os.Stdin).ReadByte()
	n.mutex.Lock()
	done := n.done
	n.mutex.Unlock()
	if !done {
		report("up has gone away")
		n.end()
	}
}

// watchOwner ends the cluster with its owner: a test run that is killed cannot tidy up.
func (n *node) watchOwner() {
	type pollFD struct {
		fd      int32
		events  int16
		revents int16
	}
	const readable = 1
	for {
		wait := pollFD{fd: ownerFD, events: readable}
		ready, _, errno := syscall.Syscall6(syscall.SYS_PPOLL, uintptr(unsafe.Pointer(&wait)), 1, 0, 0, 0, 0)
		runtime.KeepAlive(&wait)
		if errno == syscall.EINTR {
			continue
		}
		if errno != 0 {
			report("cannot watch the owner: %v", errno)
			return
		}
		if ready == 1 {
			report("the owner has ended")
			n.end()
		}
	}
}

// watchRecord ends the cluster when its state folder is gone (somebody deleted target): it could not be ended otherwise.
// It also notes which containers there are, for the case that this process is killed.
func (n *node) watchRecord() {
	noted := ""
	for {
		if now := strings.Join(containers(""), "\n"); now != noted {
			noted = now
			_ = os.WriteFile(filepath.Join(n.plan.Places.State, containersFile), []byte(now), 0o644)
		}
		time.Sleep(time.Second)
		if _, err := os.Stat(n.plan.Places.record()); errors.Is(err, os.ErrNotExist) {
			report("the record is gone")
			n.end()
		}
	}
}

// end ends every process of the cluster, and with them everything else. It does not return.
func (n *node) end() {
	n.mutex.Lock()
	if n.ending {
		n.mutex.Unlock()
		select {}
	}
	n.ending = true
	n.mutex.Unlock()
	n.supervisor.mutex.Lock() // never unlocked: nothing is started again
	if self, err := os.Readlink("/proc/self"); err == nil && self == fmt.Sprint(os.Getpid()) && insideNamespace() {
		// Reaches every process of this namespace but its first one and this one.
		_ = syscall.Kill(-1, syscall.SIGKILL)
	}
	for tries := 0; tries < 50 && removeCgroups(containers("")) != nil; tries++ {
		time.Sleep(pollEvery)
	}
	os.Exit(0)
}

// insideNamespace makes sure that the parent is the first process of the namespace, and ours: killing "everything" anywhere
// else would be a disaster.
func insideNamespace() bool {
	if os.Getppid() != 1 {
		return false
	}
	text, err := os.ReadFile("/proc/1/cmdline")
	return err == nil && string(text) == "cluster\x00"+initArgument+"\x00"
}

func decodeEvents(from io.Reader, each func(event)) {
	lines := bufio.NewScanner(from)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var event event
		if json.Unmarshal(lines.Bytes(), &event) == nil {
			each(event)
		}
	}
}
