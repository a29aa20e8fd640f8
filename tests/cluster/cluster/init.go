package main

import (
	"bufio"
	"errors"
	"os"
	"syscall"
)

// The hidden first arguments of the roles inside the namespaces.
const (
	initArgument = "__init"
	nodeArgument = "__node"
)

// Descriptors that up hands to the init process, and that to the node.
const (
	lifelineFD = 0 // a pipe from up: its end before the cluster is ready means that nobody is waiting any more
	eventsFD   = 3 // a pipe to up: what happens while booting
	ownerFD    = 4 // a handle of the owner's process, if there is one
)

// runInit is the first process of the cluster's process namespace. When it ends, for whatever reason, the kernel ends every
// other process in the namespace, containers included; with the last of them go the network and mount namespaces and all
// that is mounted there. So ending a cluster is ending one process, and nothing can be left behind by halves.
//
// It starts the node and collects the orphans that end up with a first process (runc's and containerd's helpers).
func runInit() error {
	if os.Getpid() != 1 {
		return errors.New("this is started by `cluster up` only")
	}
	// up writes one line when it has recorded who this is. If it dies before, nobody would ever end this process.
	if _, err := bufio.NewReaderSize(os.Stdin, 1).ReadString('\n'); err != nil {
		return err
	}
	files := []uintptr{lifelineFD, 1, 2, eventsFD}
	if os.Getenv(ownedVariable) != "" {
		files = append(files, ownerFD)
	}
	node, err := syscall.ForkExec("/proc/self/exe", []string{"cluster", nodeArgument}, &syscall.ProcAttr{
		Env: os.Environ(), Files: files,
	})
	if err != nil {
		return err
	}
	_ = syscall.Close(eventsFD) // so that up sees the end when the node has none of it any more
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return err
		case pid == node:
			return exitCode(status.ExitStatus())
		}
	}
}
