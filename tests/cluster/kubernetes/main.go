// Command kubernetes is every Kubernetes program that the test cluster needs, in one executable.
//
// Which one it is, is said by the name it is started under (a link), or else by the first argument. One executable
// because the programs share nearly all of their code: linking it once takes a sixth of the time and of the space.
//
// Nothing of Kubernetes is changed here. What a flag does is documented by Kubernetes; which flags are used is decided by
// the program in ../cluster.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	_ "time/tzdata" // CronJobs name time zones, and the machine may have none installed

	_ "k8s.io/component-base/logs/json/register"          // --logging-format=json
	_ "k8s.io/component-base/metrics/prometheus/clientgo" // metrics of API clients
	_ "k8s.io/component-base/metrics/prometheus/version"  // the version as a metric
)

// programs are the names this executable answers to. Each value runs until the program ends and returns its exit code.
var programs = map[string]func() int{
	"etcd":                    etcd,
	"kube-apiserver":          apiserver,
	"kube-controller-manager": controllerManager,
	"kube-proxy":              proxy,
	"kube-scheduler":          scheduler,
	"kubectl":                 kubectl,
	"kubelet":                 kubelet,
}

func main() {
	name := filepath.Base(os.Args[0])
	run, known := programs[name]
	if !known && len(os.Args) > 1 {
		// The programs look at os.Args themselves, so the name takes the place of the executable in it.
		os.Args = os.Args[1:]
		name = os.Args[0]
		run, known = programs[name]
	}
	if !known {
		fmt.Fprintf(os.Stderr, "usage: kubernetes PROGRAM ARGS...; PROGRAM is one of: %s\n", strings.Join(names(), ", "))
		os.Exit(64)
	}
	os.Exit(run())
}

func names() []string {
	var list []string
	for name := range programs {
		list = append(list, name)
	}
	sort.Strings(list)
	return list
}
