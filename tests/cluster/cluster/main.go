// Command cluster starts and ends a real Kubernetes on this machine, for tests: see ../README.md.
//
// It has three roles. As a command line it builds what is missing and talks to a running cluster. As the first process of
// a process namespace (init.go) it is what the whole cluster dies with. As the node (node.go, boot.go, supervise.go) it
// lives inside the namespaces, boots the components, and takes orders on a socket.
package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
)

const usage = `usage: cluster [--state DIR] COMMAND

  up [--owner PID] [--proxy-min-sync DURATION]
                          build what is missing, boot, return when everything is ready
                          --owner: the cluster ends by itself when this process does
                          --proxy-min-sync: kube-proxy's least time between two changes [default: 1s, as Kubernetes']
  down                    end everything; logs stay
  build                   only build what is missing
  status                  components, their state and memory
  kubeconfig              print the path of the administrator's kubeconfig
  exec COMMAND [ARG]...   run a command in the node's network, with KUBECONFIG, kubectl and ctr at hand
  load-image FILE...      import OCI archives
  load-image --name IMAGE [--save FILE] --binary NAME=PATH...
                          make an image of static executables and import it; --save also keeps the archive
  stop COMPONENT          end it (SIGTERM, then SIGKILL) and leave it down
  kill COMPONENT          end it (SIGKILL) and leave it down
  freeze COMPONENT        SIGSTOP
  cont COMPONENT          undo stop, kill or freeze, and wait until it is ready
  logs [-f] COMPONENT     print a component's log; "audit" is the audit log of the apiserver
  selftest                boot a cluster of its own, try what tests rely on, end it, and look for what is left

  COMPONENT: etcd, containerd, apiserver, controller-manager, scheduler, kubelet, proxy

Environment: ROUSE_CLUSTER_CACHE (build outputs), ROUSE_CLUSTER_STATE (as --state), ROUSE_CLUSTER_SOURCE (tests/cluster).
`

// errUsage says that the command line cannot be; main prints the usage for it.
var errUsage = errors.New("wrong usage")

func main() {
	err := run(os.Args[1:])
	var exit exitCode
	switch {
	case err == nil:
	case errors.As(err, &exit):
		os.Exit(int(exit))
	case errors.Is(err, errUsage):
		if err != errUsage {
			fmt.Fprintf(os.Stderr, "cluster: %v\n\n", err)
		}
		fmt.Fprint(os.Stderr, usage)
		os.Exit(64)
	default:
		fmt.Fprintf(os.Stderr, "cluster: %v\n", err)
		os.Exit(1)
	}
}

// exitCode is the code of a command that was run for somebody else; it speaks for itself.
type exitCode int

func (code exitCode) Error() string { return fmt.Sprintf("exit code %d", int(code)) }

func run(args []string) error {
	if len(args) > 0 {
		switch args[0] {
		case initArgument:
			return runInit()
		case nodeArgument:
			return runNode()
		case podArgument:
			return runPod(args[1:])
		}
	}
	state := ""
	if len(args) > 0 && strings.HasPrefix(args[0], "--state") {
		if value, found := strings.CutPrefix(args[0], "--state="); found {
			state, args = value, args[1:]
		} else if args[0] == "--state" && len(args) > 1 {
			state, args = args[1], args[2:]
		} else {
			return errUsage
		}
	}
	if len(args) == 0 {
		return errUsage
	}
	command, args := args[0], args[1:]
	switch command {
	case "help", "--help", "-h":
		fmt.Print(usage)
		return nil
	}
	places, err := findPlaces(state)
	if err != nil {
		return err
	}
	switch command {
	case "up":
		return up(places, args)
	case "down":
		return none(args, func() error { return down(places) })
	case "build":
		return none(args, func() error { _, err := build(places); return err })
	case "status":
		return none(args, func() error { return printStatus(places) })
	case "kubeconfig":
		return none(args, func() error { return printKubeconfig(places) })
	case "exec":
		return execute(places, args)
	case "load-image":
		return loadImage(places, args)
	case "stop", "kill", "freeze", "cont":
		return one(args, func(component string) error { return order(places, command, component) })
	case "logs":
		return printLog(places, args)
	case "selftest":
		return none(args, func() error { return selftest(places) })
	}
	return fmt.Errorf("%w: there is no command %q", errUsage, command)
}

func none(args []string, then func() error) error {
	if len(args) != 0 {
		return errUsage
	}
	return then()
}

func one(args []string, then func(string) error) error {
	if len(args) != 1 {
		return errUsage
	}
	return then(args[0])
}
