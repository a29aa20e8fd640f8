package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// process is a running cluster, seen from outside: its first process. It is what the record holds.
type process struct {
	PID int
	// Started is in the kernel's own ticks since boot: with it a PID that was given to somebody else is noticed.
	Started string
	// Boot is the machine's boot, as PIDs and ticks mean nothing after the next.
	Boot string
	Bin  string
}

var errNotRunning = errors.New("no cluster is running for this state folder; start one with `up`")

// find returns the cluster of a state folder.
func find(p places) (process, error) {
	text, err := os.ReadFile(p.record())
	if errors.Is(err, os.ErrNotExist) {
		return process{}, errNotRunning
	}
	if err != nil {
		return process{}, err
	}
	var found process
	if json.Unmarshal(text, &found) != nil || !found.alive() {
		return process{}, errNotRunning
	}
	return found, nil
}

func identify(pid int, bin string) process {
	return process{PID: pid, Started: started(pid), Boot: boot(), Bin: bin}
}

func boot() string {
	text, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(text))
}

// started is when a process started, or "" if it is not there or only waits to be collected. The first of its threads may
// be finished while another one is still at work, and that one may be busy ending a whole namespace.
func started(pid int) string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	// The second field is a name in parentheses that may hold anything, so count from behind it.
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	if len(fields) < 20 {
		return ""
	}
	if fields[0] == "Z" || fields[0] == "X" {
		if threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid)); err != nil || len(threads) <= 1 {
			return ""
		}
	}
	return fields[19]
}

func (r process) alive() bool {
	return r.PID > 1 && r.Started != "" && r.Boot == boot() && started(r.PID) == r.Started
}

// outside is a path in the node's file system as it can be used from outside. It is also short, as the path of a socket
// must be.
func (r process) outside(path string) string { return fmt.Sprintf("/proc/%d/root%s", r.PID, path) }

// member is a process of the cluster.
type member struct{ pid, inner int }

// members are all processes in the cluster's process namespace, containers included.
func (r process) members() []member {
	var list []member
	folders, _ := filepath.Glob("/proc/[0-9]*")
	all := map[int][]string{} // pid: its numbers from the outermost namespace to the innermost
	parents := map[int]int{}
	for _, folder := range folders {
		text, err := os.ReadFile(filepath.Join(folder, "status"))
		if err != nil {
			continue
		}
		pid, _ := strconv.Atoi(filepath.Base(folder))
		for _, line := range strings.Split(string(text), "\n") {
			name, value, _ := strings.Cut(line, ":")
			switch name {
			case "NSpid":
				all[pid] = strings.Fields(value)
			case "PPid":
				parents[pid], _ = strconv.Atoi(strings.TrimSpace(value))
			}
		}
	}
	depth := len(all[r.PID])
	for pid, numbers := range all {
		above := pid
		for above > 1 && above != r.PID {
			above = parents[above]
		}
		if above == r.PID && depth > 0 && len(numbers) >= depth {
			inner, _ := strconv.Atoi(numbers[depth-1])
			list = append(list, member{pid, inner})
		}
	}
	return list
}

// memory is the process's share of memory in kilobytes: what several use counts in parts.
func (m member) memory() int {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", m.pid))
	for _, line := range strings.Split(string(text), "\n") {
		if value, found := strings.CutPrefix(line, "Pss:"); found {
			kilobytes, _ := strconv.Atoi(strings.Fields(value)[0])
			return kilobytes
		}
	}
	return 0
}

// downPatience is how long the kernel may take to end all processes of a namespace.
const downPatience = 30 * time.Second

// down ends a cluster, in whatever state it is, and removes what outlives its processes. Logs stay.
func down(p places) error {
	start := time.Now()
	running, err := find(p)
	if err != nil && !errors.Is(err, errNotRunning) {
		return err
	}
	noted, _ := os.ReadFile(filepath.Join(p.State, containersFile))
	left := strings.Split(string(noted), "\n")
	if err == nil {
		left = append(left, containers(running.outside(""))...)
		// The first process of a namespace takes all others along, and is gone only when they are.
		if err := syscall.Kill(running.PID, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("end process %d: %w", running.PID, err)
		}
		for running.alive() {
			if time.Since(start) > downPatience {
				return fmt.Errorf("process %d does not end", running.PID)
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	for {
		err := removeCgroups(left)
		if err == nil {
			break
		}
		if time.Since(start) > downPatience {
			return err
		}
		time.Sleep(10 * time.Millisecond)
	}
	for _, file := range []string{filepath.Join(p.State, containersFile), p.plan(), p.kubeconfig(), p.record()} {
		if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	if running.PID != 0 {
		fmt.Printf("down after %s\n", since(start))
	}
	return nil
}

func printKubeconfig(p places) error {
	if _, err := find(p); err != nil {
		return err
	}
	fmt.Println(p.kubeconfig())
	return nil
}

// execute replaces this process by a command in the node's network namespace.
func execute(p places, args []string) error {
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	if len(args) == 0 {
		return errUsage
	}
	running, err := find(p)
	if err != nil {
		return err
	}
	set := map[string]string{
		"KUBECONFIG":           p.kubeconfig(),
		"PATH":                 running.Bin + ":" + os.Getenv("PATH"),
		"CONTAINERD_ADDRESS":   running.outside(containerdSocket), // for ctr
		"CONTAINERD_NAMESPACE": "k8s.io",
		"ROUSE_CLUSTER_STATE":  p.State,
	}
	for name, value := range set {
		if err := os.Setenv(name, value); err != nil {
			return err
		}
	}
	path, err := exec.LookPath(args[0])
	if err != nil {
		return err
	}
	// A namespace belongs to a thread. The thread that calls exec becomes the new program.
	runtime.LockOSThread()
	if err := enterNetwork(running.PID); err != nil {
		return err
	}
	return syscall.Exec(path, args, os.Environ())
}

func enterNetwork(pid int) error {
	network, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		return err
	}
	defer network.Close()
	setns, known := map[string]uintptr{"amd64": 308, "arm64": 268}[runtime.GOARCH]
	if !known {
		return fmt.Errorf("not prepared for %s", runtime.GOARCH)
	}
	if _, _, errno := syscall.RawSyscall(setns, network.Fd(), syscall.CLONE_NEWNET, 0); errno != 0 {
		return fmt.Errorf("enter the node's network: %w", errno)
	}
	return nil
}

// printLog prints a component's log, and with -f goes on as it grows.
func printLog(p places, args []string) error {
	follow := len(args) > 0 && args[0] == "-f"
	if follow {
		args = args[1:]
	}
	return one(args, func(component string) error {
		file, err := os.Open(p.log(component))
		if err != nil {
			return err
		}
		defer file.Close()
		for {
			if _, err := io.Copy(os.Stdout, file); err != nil || !follow {
				return err
			}
			time.Sleep(200 * time.Millisecond)
		}
	})
}
