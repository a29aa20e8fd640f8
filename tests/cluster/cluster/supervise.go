package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// state is what a component is doing, and at the same time what was asked of it.
type state string

const (
	running state = "running"
	frozen  state = "frozen"
	stopped state = "down"    // because somebody ordered it
	failed  state = "failed"  // it ended by itself; it is started again in a moment
	idle    state = "not yet" // before its turn in the boot
)

const (
	// restartAfter keeps a component that ends at once from taking all of the processor.
	restartAfter = time.Second
	// patience is how long a component may take to end when it is told to.
	patience = 10 * time.Second
)

// unit is a component and its process.
type unit struct {
	component
	state    state
	process  *os.Process
	ended    chan struct{} // closed when the process is gone
	since    time.Time
	restarts int
}

// supervisor starts the components, starts those again that end by themselves, and carries out orders.
type supervisor struct {
	plan  plan
	mutex sync.Mutex
	units []*unit
	// booted says that an end is no longer a failure of the boot.
	booted bool
	// failures gets the first component that ends during the boot.
	failures chan error
}

func newSupervisor(plan plan) *supervisor {
	s := &supervisor{plan: plan, failures: make(chan error, 1)}
	for _, component := range components(plan) {
		s.units = append(s.units, &unit{component: component, state: idle})
	}
	return s
}

// unit may be called without the lock: the list does not change.
func (s *supervisor) unit(name string) (*unit, error) {
	var names []string
	for _, unit := range s.units {
		if unit.name == name {
			return unit, nil
		}
		names = append(names, unit.name)
	}
	return nil, fmt.Errorf("there is no component %q; there are %s", name, strings.Join(names, ", "))
}

// start starts these components without waiting for them.
func (s *supervisor) start(names ...string) error {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	for _, name := range names {
		unit, err := s.unit(name)
		if err != nil {
			return err
		}
		if err := s.launch(unit); err != nil {
			return err
		}
	}
	return nil
}

// launch starts a process that is not there. The lock is held.
func (s *supervisor) launch(unit *unit) error {
	log, err := os.OpenFile(s.plan.Places.log(unit.name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	command := exec.Command(filepath.Join(s.plan.Built.Bin, unit.program), unit.args...)
	command.Stdout, command.Stderr = log, log
	command.Env = []string{"PATH=" + s.plan.Built.Bin + ":" + systemPath, "HOME=/root"}
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := command.Start(); err != nil {
		return fmt.Errorf("start %s: %w", unit.name, err)
	}
	ended := make(chan struct{})
	unit.process, unit.state, unit.since, unit.ended = command.Process, running, time.Now(), ended
	go func() {
		err := command.Wait()
		s.gone(unit, err)
		close(ended)
	}()
	return nil
}

// gone notes that a unit's process ended.
func (s *supervisor) gone(unit *unit, err error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	unit.process, unit.since = nil, time.Now()
	if unit.state == stopped {
		return
	}
	unit.state = failed
	report("%s ended by itself: %v", unit.name, err)
	if !s.booted {
		select {
		case s.failures <- fmt.Errorf("%s ended: %v; the end of its log:\n%s", unit.name, err, tail(s.plan.Places.log(unit.name))):
		default:
		}
		return
	}
	time.AfterFunc(restartAfter, func() {
		s.mutex.Lock()
		defer s.mutex.Unlock()
		if unit.state != failed {
			return
		}
		unit.restarts++
		if err := s.launch(unit); err != nil {
			report("%v", err)
		}
	})
}

// end ends a component and leaves it down.
func (s *supervisor) end(name string, signal syscall.Signal) error {
	unit, err := s.unit(name)
	if err != nil {
		return err
	}
	s.mutex.Lock()
	unit.state = stopped
	process, ended := unit.process, unit.ended
	if process != nil {
		_ = process.Signal(signal)
		_ = process.Signal(syscall.SIGCONT) // a frozen process could not act on the first one
	}
	s.mutex.Unlock()
	if process == nil {
		return nil
	}
	select {
	case <-ended:
		return nil
	case <-time.After(patience):
	}
	_ = process.Kill()
	<-ended
	return nil
}

func (s *supervisor) freeze(name string) error {
	unit, err := s.unit(name)
	if err != nil {
		return err
	}
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if unit.process == nil {
		return fmt.Errorf("%s is not running", name)
	}
	unit.state = frozen
	return unit.process.Signal(syscall.SIGSTOP)
}

// resume makes a component run, whatever it was doing, and waits until it is ready.
func (s *supervisor) resume(ctx context.Context, name string) error {
	unit, err := s.unit(name)
	if err != nil {
		return err
	}
	s.mutex.Lock()
	if unit.process == nil {
		err = s.launch(unit)
	} else {
		unit.state = running
		err = unit.process.Signal(syscall.SIGCONT)
	}
	s.mutex.Unlock()
	if err != nil {
		return err
	}
	return s.wait(ctx, name)
}

// wait waits until a component is ready.
func (s *supervisor) wait(ctx context.Context, name string) error {
	unit, err := s.unit(name)
	if err != nil {
		return err
	}
	return s.until(ctx, name, unit.ready)
}

// until asks again and again until the answer is no error. It gives up when the boot fails or the time is over.
func (s *supervisor) until(ctx context.Context, what string, ask func(context.Context) error) error {
	for {
		err := ask(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w", what, err)
		case failure := <-s.failures:
			s.failures <- failure // for the others who wait
			return failure
		case <-time.After(pollEvery):
		}
	}
}

// report writes a line to the node's own log.
func report(format string, args ...any) {
	fmt.Printf("%s %s\n", time.Now().UTC().Format("15:04:05.000"), fmt.Sprintf(format, args...))
}

// tail is the end of a log, for an error.
func tail(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-12):], "\n")
}
