package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// The node's own world. Every cluster has the same one, because each is in namespaces of its own.
const (
	nodeName      = "node1"
	nodeIP        = "10.0.0.1"
	podNetwork    = "10.244.0.0/16"
	serviceRange  = "10.96.0.0/16"
	apiServiceIP  = "10.96.0.1"
	dnsServiceIP  = "10.96.0.10"
	clusterDomain = "cluster.local"
	apiURL        = "https://" + nodeIP + ":6443"

	home             = "/run/rouse-node"
	pkiFolder        = home + "/pki"
	configFolder     = home + "/config"
	containerdSocket = home + "/containerd.sock"
	controlSocket    = home + "/control.sock"
)

// plan is what up tells the node. It is a file, not arguments, so that it can be looked at afterwards.
type plan struct {
	Places       places
	Built        built
	CNI          string
	ProxyMinSync string
}

func (p plan) write() error {
	return os.WriteFile(p.Places.plan(), marshal(p), 0o644)
}

func readPlan(path string) (plan, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return plan{}, err
	}
	var read plan
	return read, json.Unmarshal(text, &read)
}

// prepareMounts gives the node file systems of its own, for everything that Kubernetes and containerd write outside the
// folders they are told to use. All of it is memory and vanishes with the namespace; the machine's own files stay as
// they are.
func prepareMounts() error {
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	mounts := []struct{ kind, at, options string }{
		{"proc", "/proc", ""}, // that of the process namespace
		{"tmpfs", "/run", "mode=755"},
	}
	for _, mount := range mounts {
		if err := syscall.Mount(mount.kind, mount.at, mount.kind, syscall.MS_NOSUID|syscall.MS_NODEV, mount.options); err != nil {
			return fmt.Errorf("mount %s: %w", mount.at, err)
		}
	}
	for _, folder := range []string{pkiFolder, configFolder, home + "/cni/conf", home + "/var-new", home + "/var-work", home + "/sysctl"} {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return err
		}
	}
	// /var as it is, with changes kept in memory: CNI caches and container log links have fixed places there.
	overlay := fmt.Sprintf("lowerdir=/var,upperdir=%s/var-new,workdir=%s/var-work", home, home)
	if err := syscall.Mount("overlay", "/var", "overlay", 0, overlay); err != nil {
		return fmt.Errorf("mount /var: %w", err)
	}
	if err := refuseNames(); err != nil {
		return err
	}
	return shieldSettings()
}

// refuseNames has names that are looked up by the node itself fail at once. The machine's name servers cannot be reached
// from here, and waiting for them would turn the failure to pull an image into half a minute of nothing.
func refuseNames() error {
	const text = "nameserver 127.0.0.1\n"
	name := "/etc/resolv.conf"
	if link, err := os.Readlink(name); err == nil {
		if !filepath.IsAbs(link) {
			link = filepath.Join("/etc", link)
		}
		name = link
	}
	if strings.HasPrefix(name, "/run/") { // which is a new one
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		return os.WriteFile(name, []byte(text), 0o644)
	}
	standIn := home + "/resolv.conf"
	if err := os.WriteFile(standIn, []byte(text), 0o644); err != nil {
		return err
	}
	if _, err := os.Stat(name); errors.Is(err, os.ErrNotExist) {
		return nil // then the default is this machine, too
	}
	if err := syscall.Mount(standIn, name, "", syscall.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount %s: %w", name, err)
	}
	return nil
}

// shieldSettings puts copies in the place of kernel settings that a kubelet changes and that belong to the whole machine.
// The kubelet writes to the copy. Settings of the network are not among them: the node has its own.
func shieldSettings() error {
	for _, name := range []string{
		"vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops",
		"kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes",
	} {
		real := "/proc/sys/" + name
		text, err := os.ReadFile(real)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		standIn := filepath.Join(home, "sysctl", strings.ReplaceAll(name, "/", "-"))
		if err := os.WriteFile(standIn, text, 0o644); err != nil {
			return err
		}
		if err := syscall.Mount(standIn, real, "", syscall.MS_BIND, ""); err != nil {
			return fmt.Errorf("shield %s: %w", real, err)
		}
	}
	return nil
}

// prepareNetwork makes the node's only interface, a cable from the node to itself: some kernels have no dummy device.
// Nothing is at the other end, so whatever is not in the cluster cannot be reached.
func prepareNetwork() error {
	ip := exec.Command("ip", "-batch", "-")
	ip.Stdin = strings.NewReader(strings.Join([]string{
		"link set lo up",
		"link add node0 type veth peer name node0p",
		"address add " + nodeIP + "/24 dev node0",
		"link set node0p up",
		"link set node0 up",
		"route add default dev node0",
	}, "\n") + "\n")
	if output, err := ip.CombinedOutput(); err != nil {
		return fmt.Errorf("ip: %w: %s", err, output)
	}
	if err := dropUntranslated(); err != nil {
		return err
	}
	return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644)
}

// dropUntranslated drops packets that still have a cluster IP as their destination after kube-proxy's rules, as Calico does
// (serviceLoopPrevention). Such a packet has met rules that do not know its Service yet, or rules that were just being replaced
// (nf_tables changes chains one after another, so a packet may see some of before and some of after). If it got through, the
// kernel would remember for its whole connection that nothing is to be translated: the client would try again on the same
// connection and fail after 3 s with "no route to host". Dropped here, nothing is remembered and the next try is translated.
// kube-proxy puts its own rules before these, so a Service without endpoints is still refused at once.
func dropUntranslated() error {
	for _, chain := range []string{"OUTPUT", "FORWARD"} {
		output, err := exec.Command("iptables", "--append", chain, "--destination", serviceRange, "--jump", "DROP").CombinedOutput()
		if err != nil {
			return fmt.Errorf("iptables: %w: %s", err, output)
		}
	}
	return nil
}

// containersFile is where the node notes its containers, one a line.
const containersFile = "containers"

// containers are the identifiers of the containers that runc knows of, seen through a path to the node's file system. One
// that ends in good order takes its control groups along; these are the others.
func containers(root string) []string {
	entries, _ := os.ReadDir(root + home + "/runc/k8s.io")
	var list []string
	for _, entry := range entries {
		list = append(list, entry.Name())
	}
	return list
}

// removeCgroups removes the control groups of these containers, which outlive their processes. They are all in one parent
// that clusters share, so each cluster removes its own by name. The parent stays: another cluster may be about to use it.
func removeCgroups(containers []string) error {
	var failed error
	for _, container := range containers {
		if container == "" || strings.Contains(container, "/") {
			continue
		}
		for _, pattern := range []string{"/sys/fs/cgroup/k8s.io/", "/sys/fs/cgroup/*/k8s.io/"} {
			groups, err := filepath.Glob(pattern + container)
			if err != nil {
				return err
			}
			for _, group := range groups {
				if err := syscall.Rmdir(group); err != nil && !errors.Is(err, syscall.ENOENT) {
					failed = fmt.Errorf("remove %s: %w", group, err)
				}
			}
		}
	}
	return failed
}
