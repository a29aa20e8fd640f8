package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"
)

// orderPatience is how long `cont` waits for a component, and so the longest that an order takes.
const orderPatience = time.Minute

// report of one component, as status prints it.
type componentStatus struct {
	Name     string
	State    state
	PID      int // inside the process namespace
	Since    time.Time
	Restarts int
}

// serveOrders listens for the command line. The socket is in the node's own file system, so only root can reach it.
func (n *node) serveOrders() error {
	listener, err := net.Listen("unix", controlSocket)
	if err != nil {
		return err
	}
	s := n.supervisor
	orders := map[string]func(context.Context, string) error{
		"stop":   func(_ context.Context, name string) error { return s.end(name, syscall.SIGTERM) },
		"kill":   func(_ context.Context, name string) error { return s.end(name, syscall.SIGKILL) },
		"freeze": func(_ context.Context, name string) error { return s.freeze(name) },
		"cont":   s.resume,
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /{order}", func(answer http.ResponseWriter, request *http.Request) {
		order, known := orders[request.PathValue("order")]
		if !known {
			http.Error(answer, "there is no such order", http.StatusNotFound)
			return
		}
		component := request.FormValue("component")
		ctx, cancel := context.WithTimeout(request.Context(), orderPatience)
		defer cancel()
		err := order(ctx, component)
		report("%s %s: %v", request.PathValue("order"), component, err)
		if err != nil {
			http.Error(answer, err.Error(), http.StatusConflict)
		}
	})
	mux.HandleFunc("GET /status", func(answer http.ResponseWriter, _ *http.Request) {
		_, _ = answer.Write(marshal(s.status()))
	})
	go func() { _ = http.Serve(listener, mux) }()
	return nil
}

func (s *supervisor) status() []componentStatus {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	var list []componentStatus
	for _, unit := range s.units {
		status := componentStatus{Name: unit.name, State: unit.state, Since: unit.since, Restarts: unit.restarts}
		if unit.process != nil {
			status.PID = unit.process.Pid
		}
		list = append(list, status)
	}
	return list
}

// ask sends one request to a cluster's control socket.
func (r process) ask(method, path string) ([]byte, error) {
	client := http.Client{Timeout: orderPatience + 30*time.Second, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var dialer net.Dialer
			return dialer.DialContext(ctx, "unix", r.outside(controlSocket))
		},
	}}
	request, err := http.NewRequest(method, "http://cluster"+path, nil)
	if err != nil {
		return nil, err
	}
	answer, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = errors.New(strings.TrimSpace(string(text)))
	}
	return text, err
}

// order has the node do something with a component, and returns when it is done.
func order(p places, what, component string) error {
	running, err := find(p)
	if err != nil {
		return err
	}
	_, err = running.ask(http.MethodPost, "/"+what+"?component="+url.QueryEscape(component))
	return err
}

func printStatus(p places) error {
	running, err := find(p)
	if err != nil {
		return err
	}
	text, err := running.ask(http.MethodGet, "/status")
	if err != nil {
		return err
	}
	var list []componentStatus
	if err := json.Unmarshal(text, &list); err != nil {
		return err
	}
	members := running.members()
	byInner := map[int]member{}
	var all int
	for _, member := range members {
		byInner[member.inner] = member
		all += member.memory()
	}
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "COMPONENT\tSTATE\tSINCE\tRESTARTS\tPID\tMEMORY")
	for _, each := range list {
		pid, memory := "-", "-"
		if member, found := byInner[each.PID]; found && each.PID != 0 {
			pid, memory = fmt.Sprint(member.pid), megabytes(member.memory())
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%d\t%s\t%s\n", each.Name, each.State,
			time.Since(each.Since).Round(time.Second), each.Restarts, pid, memory)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	fmt.Printf("%d processes, %s together; the first is %d\n", len(members), megabytes(all), running.PID)
	return nil
}

func megabytes(kilobytes int) string { return fmt.Sprintf("%d MB", kilobytes/1024) }
