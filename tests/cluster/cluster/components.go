package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// component is one program of the node.
type component struct {
	name    string
	program string
	args    []string
	// ready returns nil when the program does what it is for.
	ready func(context.Context) error
}

// components are all programs, in the order in which a person would start them by hand.
func components(plan plan) []component {
	pki := func(name string) string { return filepath.Join(pkiFolder, name) }
	config := func(name string) string { return filepath.Join(configFolder, name) }
	return []component{
		{
			name: "etcd", program: "etcd",
			args:  []string{"--data-dir=" + home + "/etcd"},
			ready: dials("tcp", "127.0.0.1:2379"),
		},
		{
			name: "containerd", program: "containerd",
			args:  []string{"--config=" + config("containerd.toml")},
			ready: dials("unix", containerdSocket),
		},
		{
			name: "apiserver", program: "kube-apiserver",
			args: []string{
				"--etcd-servers=http://127.0.0.1:2379",
				"--bind-address=0.0.0.0",
				"--secure-port=6443",
				"--advertise-address=" + nodeIP,
				"--tls-cert-file=" + pki("apiserver.crt"),
				"--tls-private-key-file=" + pki("apiserver.key"),
				"--client-ca-file=" + pki("ca.crt"),
				"--kubelet-certificate-authority=" + pki("ca.crt"),
				"--kubelet-client-certificate=" + pki("apiserver-to-kubelet.crt"),
				"--kubelet-client-key=" + pki("apiserver-to-kubelet.key"),
				"--kubelet-preferred-address-types=InternalIP",
				"--service-account-issuer=https://kubernetes.default.svc." + clusterDomain,
				"--service-account-key-file=" + pki("service-account.key"),
				"--service-account-signing-key-file=" + pki("service-account.key"),
				"--service-cluster-ip-range=" + serviceRange,
				"--authorization-mode=Node,RBAC",
				"--enable-admission-plugins=NodeRestriction",
				"--allow-privileged=true",
				"--audit-policy-file=" + config("audit.json"),
				"--audit-log-path=" + plan.Places.log("audit"),
				"--audit-log-format=json",
			},
			ready: gets(apiURL + "/readyz"),
		},
		{
			name: "controller-manager", program: "kube-controller-manager",
			args: []string{
				"--kubeconfig=" + pki("controller-manager.kubeconfig"),
				"--service-account-private-key-file=" + pki("service-account.key"),
				"--root-ca-file=" + pki("ca.crt"),
				"--use-service-account-credentials=true",
				"--leader-elect=false",
				"--flex-volume-plugin-dir=" + home + "/volume-plugins",
			},
			ready: gets("https://127.0.0.1:10257/healthz"),
		},
		{
			name: "scheduler", program: "kube-scheduler",
			args: []string{
				"--kubeconfig=" + pki("scheduler.kubeconfig"),
				"--leader-elect=false",
			},
			ready: gets("https://127.0.0.1:10259/healthz"),
		},
		{
			name: "kubelet", program: "kubelet",
			args: []string{
				"--kubeconfig=" + pki("kubelet.kubeconfig"),
				"--config=" + config("kubelet.json"),
				"--hostname-override=" + nodeName,
				"--node-ip=" + nodeIP,
				"--root-dir=" + home + "/kubelet",
				"--cert-dir=" + home + "/kubelet/pki",
			},
			ready: gets("http://127.0.0.1:10248/healthz"),
		},
		{
			name: "proxy", program: "kube-proxy",
			args:  []string{"--config=" + config("proxy.json")},
			ready: gets("http://" + nodeIP + ":10256/healthz"),
		},
	}
}

func dials(network, address string) func(context.Context) error {
	return func(ctx context.Context) error {
		var dialer net.Dialer
		connection, err := dialer.DialContext(ctx, network, address)
		if err != nil {
			return err
		}
		return connection.Close()
	}
}

// gets asks a health endpoint. Who answers is not checked: only our own programs are in this network.
func gets(url string) func(context.Context) error {
	return func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		client := http.Client{Transport: &http.Transport{
			TLSClientConfig:   &tls.Config{InsecureSkipVerify: true},
			DisableKeepAlives: true,
		}}
		answer, err := client.Do(request)
		if err != nil {
			return err
		}
		answer.Body.Close()
		if answer.StatusCode != http.StatusOK {
			return fmt.Errorf("%s says %s", url, answer.Status)
		}
		return nil
	}
}

// writeConfigs writes the configuration files of the components. JSON is YAML too.
func writeConfigs(plan plan) error {
	containerd := fmt.Sprintf(containerdConfig,
		home, home, containerdSocket, pauseImage, plan.CNI, home+"/cni/conf", home)
	files := map[string][]byte{
		configFolder + "/containerd.toml": []byte(containerd),
		home + "/cni/conf/10-pods.conflist": marshal(map[string]any{
			"cniVersion": "1.0.0", "name": "pods",
			// Pods are routed, each on a cable of its own, as many CNIs do it. With a bridge, what one pod sends to a
			// Service would pass the node's firewall only with a kernel module that not every machine has loaded, or
			// with all sources masqueraded; this way a server sees the pod that asks.
			"plugins": []any{map[string]any{
				"type": "ptp", "ipMasq": false,
				"ipam": map[string]any{
					"type": "host-local", "dataDir": home + "/cni/addresses",
					"ranges": []any{[]any{map[string]any{"subnet": podNetwork}}},
					"routes": []any{map[string]any{"dst": "0.0.0.0/0"}},
				},
			}},
		}),
		configFolder + "/audit.json": marshal(map[string]any{
			"apiVersion": "audit.k8s.io/v1", "kind": "Policy",
			"omitStages": []string{"RequestReceived"},
			"rules":      []any{map[string]any{"level": "Metadata"}},
		}),
		configFolder + "/kubelet.json": marshal(kubeletConfig(plan)),
		configFolder + "/proxy.json": marshal(map[string]any{
			"apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration",
			"clientConnection": map[string]any{"kubeconfig": pkiFolder + "/proxy.kubeconfig"},
			"mode":             "iptables",
			"clusterCIDR":      podNetwork,
			"hostnameOverride": nodeName,
			"bindAddress":      "0.0.0.0",
			"iptables":         map[string]any{"minSyncPeriod": plan.ProxyMinSync, "syncPeriod": "30s"},
			// 0: leave the kernel's limits alone.
			"conntrack": map[string]any{
				"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s",
			},
		}),
	}
	for name, text := range files {
		if err := os.WriteFile(name, text, 0o644); err != nil {
			return err
		}
	}
	return nil
}

func kubeletConfig(plan plan) map[string]any {
	return map[string]any{
		"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
		"containerRuntimeEndpoint": "unix://" + containerdSocket,
		"authentication": map[string]any{
			"anonymous": map[string]any{"enabled": false},
			"webhook":   map[string]any{"enabled": true},
			"x509":      map[string]any{"clientCAFile": pkiFolder + "/ca.crt"},
		},
		"authorization":     map[string]any{"mode": "Webhook"},
		"tlsCertFile":       pkiFolder + "/kubelet.crt",
		"tlsPrivateKeyFile": pkiFolder + "/kubelet.key",
		"clusterDNS":        []string{dnsServiceIP},
		"clusterDomain":     clusterDomain,
		"resolvConf":        "",
		"podLogsDir":        filepath.Join(plan.Places.logs(), "pods"),
		"volumePluginDir":   home + "/volume-plugins",

		// The machine's control groups are taken as they are: one group for all pods, no reservations.
		"cgroupDriver": "cgroupfs", "cgroupsPerQOS": false,
		"enforceNodeAllocatable": []string{}, "failCgroupV1": false, "failSwapOn": false,
		// Its disk and memory are shared with builds, whose needs are no reason to evict a pod.
		"evictionHard": map[string]string{
			"memory.available": "0%", "nodefs.available": "0%", "nodefs.inodesFree": "0%", "imagefs.available": "0%",
		},
		"imageGCHighThresholdPercent": 100, "localStorageCapacityIsolation": false,
		"makeIPTablesUtilChains": false,
	}
}

const containerdConfig = `version = 3
root = '%s/containerd/root'
state = '%s/containerd/state'
# The rest of the usual plugins needs programs or file systems that are not here.
disabled_plugins = [
  'io.containerd.internal.v1.tracing',
  'io.containerd.tracing.processor.v1.otlp',
  'io.containerd.internal.v1.opt',
  'io.containerd.nri.v1.nri',
  'io.containerd.snapshotter.v1.blockfile',
  'io.containerd.snapshotter.v1.erofs',
  'io.containerd.snapshotter.v1.native',
  'io.containerd.differ.v1.erofs',
]

[grpc]
address = '%s'

[plugins.'io.containerd.cri.v1.images']
snapshotter = 'overlayfs'
[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = '%s'

[plugins.'io.containerd.cri.v1.runtime']
# A test machine may itself be a container that must not lower a score.
restrict_oom_score_adj = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = ['%s']
conf_dir = '%s'
[plugins.'io.containerd.cri.v1.runtime'.containerd]
default_runtime_name = 'runc'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
runtime_type = 'io.containerd.runc.v2'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
BinaryName = 'runc'
Root = '%s/runc'
SystemdCgroup = false
`
