package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// up builds what is missing, starts a cluster and returns when it is ready.
func up(p places, args []string) error {
	start := time.Now()
	owner, proxyMinSync := 0, "1s"
	for len(args) > 0 {
		name, value, joined := strings.Cut(args[0], "=")
		args = args[1:]
		if !joined {
			if len(args) == 0 {
				return errUsage
			}
			value, args = args[0], args[1:]
		}
		switch name {
		case "--owner":
			pid, err := strconv.Atoi(value)
			if err != nil || pid < 1 {
				return fmt.Errorf("%w: --owner wants a PID, not %q", errUsage, value)
			}
			owner = pid
		case "--proxy-min-sync":
			if _, err := time.ParseDuration(value); err != nil {
				return fmt.Errorf("%w: --proxy-min-sync: %w", errUsage, err)
			}
			proxyMinSync = value
		default:
			return errUsage
		}
	}
	cni, err := checkMachine()
	if err != nil {
		return err
	}
	if running, err := find(p); err == nil {
		return fmt.Errorf("a cluster is running already (process %d); end it with `down`", running.PID)
	}
	if err := down(p); err != nil { // what a crash left behind
		return err
	}
	built, err := build(p)
	if err != nil {
		return err
	}
	plan := plan{Places: p, Built: built, CNI: cni, ProxyMinSync: proxyMinSync}
	if err := os.RemoveAll(p.logs()); err != nil {
		return err
	}
	if err := os.MkdirAll(p.logs(), 0o755); err != nil {
		return err
	}
	if err := plan.write(); err != nil {
		return err
	}
	if err := startNode(plan, owner); err != nil {
		if after := down(p); after != nil {
			err = errors.Join(err, after)
		}
		return fmt.Errorf("%w\n(logs: %s)", err, p.logs())
	}
	fmt.Printf("up after %s; kubeconfig: %s\n", since(start), p.kubeconfig())
	return nil
}

// checkMachine says in one line what is missing, and where the CNI plugins are.
func checkMachine() (cni string, err error) {
	if os.Geteuid() != 0 {
		return "", errors.New("this needs root: a node makes namespaces, mounts and firewall rules")
	}
	// Debian keeps some of these where a user's PATH does not look.
	if err := os.Setenv("PATH", os.Getenv("PATH")+":"+systemPath); err != nil {
		return "", err
	}
	var missing []string
	for _, need := range []struct{ program, pkg string }{
		{"runc", "runc"}, {"iptables", "iptables"}, {"conntrack", "conntrack"}, {"ip", "iproute2"},
	} {
		if _, err := exec.LookPath(need.program); err != nil {
			missing = append(missing, need.pkg)
		}
	}
	for _, folder := range []string{"/usr/lib/cni", "/opt/cni/bin"} {
		if _, err := os.Stat(folder + "/ptp"); err == nil {
			cni = folder
			break
		}
	}
	if cni == "" {
		missing = append(missing, "containernetworking-plugins")
	}
	if len(missing) > 0 {
		return "", fmt.Errorf("missing here: %s (Debian's names); as root: apt-get install %[1]s", strings.Join(missing, " "))
	}
	return cni, nil
}

// startNode starts the namespaces' first process and follows the boot to its end.
func startNode(plan plan, owner int) error {
	p := plan.Places
	lifelineIn, lifeline, err := os.Pipe()
	if err != nil {
		return err
	}
	defer lifeline.Close()
	events, eventsIn, err := os.Pipe()
	if err != nil {
		return err
	}
	defer events.Close()
	log, err := os.Create(p.log("node"))
	if err != nil {
		return err
	}
	defer log.Close()

	command := exec.Command("/proc/self/exe")
	command.Args = []string{"cluster", initArgument}
	command.Env = []string{"PATH=" + os.Getenv("PATH"), planVariable + "=" + p.plan()}
	command.Dir = "/"
	command.Stdin, command.Stdout, command.Stderr = lifelineIn, log, log
	command.ExtraFiles = []*os.File{eventsIn}
	if owner != 0 {
		handle, err := openProcess(owner)
		if err != nil {
			return fmt.Errorf("owner %d: %w", owner, err)
		}
		defer handle.Close()
		command.ExtraFiles = append(command.ExtraFiles, handle)
		command.Env = append(command.Env, ownedVariable+"=1")
	}
	command.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET,
		Setsid:     true, // a Ctrl-C is for up, which then ends the cluster
	}
	err = command.Start()
	lifelineIn.Close()
	eventsIn.Close()
	if err != nil {
		return fmt.Errorf("make namespaces: %w", err)
	}
	go func() { _ = command.Wait() }() // so that it is not left as a zombie if it ends
	if err := os.WriteFile(p.record(), marshal(identify(command.Process.Pid, plan.Built.Bin)), 0o644); err != nil {
		_ = command.Process.Kill()
		return err
	}
	if _, err := lifeline.WriteString("\n"); err != nil {
		return err
	}

	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(interrupted)
	result := make(chan error, 1)
	go func() {
		err := errors.New("the node ended before it was ready; the end of its log:\n" + tail(p.log("node")))
		decodeEvents(events, func(event event) {
			switch {
			case event.Ready:
				err = nil
			case event.Failed != "":
				err = errors.New(event.Failed)
			default:
				fmt.Printf("%6.1f s  %s\n", event.Seconds, event.Phase)
			}
		})
		result <- err
	}()
	select {
	case err := <-result:
		return err
	case received := <-interrupted:
		return fmt.Errorf("%v", received)
	}
}

// openProcess returns a handle of a process that stays its own even if its number is given away.
func openProcess(pid int) (*os.File, error) {
	const pidfdOpen = 434 // on every architecture
	fd, _, errno := syscall.Syscall(pidfdOpen, uintptr(pid), 0, 0)
	if errno != 0 {
		return nil, errno
	}
	return os.NewFile(fd, "owner"), nil
}
