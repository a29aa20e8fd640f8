package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

// podArgument is the hidden first argument of the roles that this program has in the containers of the self-test.
const podArgument = "__pod"

const accountFolder = "/var/run/secrets/kubernetes.io/serviceaccount/"

// runPod is one container of the self-test.
func runPod(args []string) error {
	if len(args) == 0 {
		return errUsage
	}
	switch args[0] {
	case "web":
		return podWeb(":8080")
	case "get":
		return printPage(args[1:])
	case "webhook":
		return podWebhook()
	case "slow-sidecar":
		return podSlowSidecar()
	case "needs-sidecar":
		return podNeedsSidecar()
	}
	return errUsage
}

// podWeb answers what the self-test wants to know from the inside of a pod.
func podWeb(address string) error {
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(answer http.ResponseWriter, request *http.Request) {
		host, _, _ := net.SplitHostPort(request.RemoteAddr)
		fmt.Fprint(answer, host)
	})
	mux.HandleFunc("/fetch", func(answer http.ResponseWriter, request *http.Request) {
		client := http.Client{Timeout: 3 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
		got, err := client.Get(request.FormValue("url"))
		tell(answer, got, err)
	})
	mux.HandleFunc("/api", func(answer http.ResponseWriter, request *http.Request) {
		got, err := askAPI(request.FormValue("host"))
		tell(answer, got, err)
	})
	server := http.Server{Addr: address, Handler: mux}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	go func() {
		<-ctx.Done()
		_ = server.Close()
	}()
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// printPage fetches a page for the self-test, which is not in the node's network itself.
func printPage(args []string) error {
	return one(args, func(url string) error {
		client := http.Client{Timeout: 5 * time.Second}
		answer, err := client.Get(url)
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		text, err := io.ReadAll(answer.Body)
		if err == nil && answer.StatusCode != http.StatusOK {
			err = fmt.Errorf("%s says %s: %s", url, answer.Status, text)
		}
		fmt.Print(string(text))
		return err
	})
}

func tell(answer http.ResponseWriter, got *http.Response, err error) {
	if err != nil {
		http.Error(answer, err.Error(), http.StatusBadGateway)
		return
	}
	defer got.Body.Close()
	answer.WriteHeader(got.StatusCode)
	_, _ = io.Copy(answer, got.Body)
}

// askAPI does what every client in a pod does: the mounted token, the mounted authority, and the apiserver by its name or
// by the variables that a container is given.
func askAPI(host string) (*http.Response, error) {
	if host == "" {
		host = net.JoinHostPort(os.Getenv("KUBERNETES_SERVICE_HOST"), os.Getenv("KUBERNETES_SERVICE_PORT"))
	}
	token, err := os.ReadFile(accountFolder + "token")
	if err != nil {
		return nil, err
	}
	ca, err := os.ReadFile(accountFolder + "ca.crt")
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	request, err := http.NewRequest(http.MethodGet, "https://"+host+"/api/v1/namespaces/default/pods", nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "Bearer "+string(token))
	client := http.Client{Timeout: 3 * time.Second, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots}, DisableKeepAlives: true,
	}}
	return client.Do(request)
}

// mutated is the label that the webhook puts on every pod it is asked about.
const mutated = "rouse.test/mutated"

// podWebhook is a mutating admission webhook with the certificate from its environment.
func podWebhook() error {
	certificate, err := tls.X509KeyPair([]byte(os.Getenv("CERTIFICATE")), []byte(os.Getenv("KEY")))
	if err != nil {
		return err
	}
	handler := func(answer http.ResponseWriter, request *http.Request) {
		var review struct {
			Request struct{ UID string }
		}
		if err := json.NewDecoder(io.LimitReader(request.Body, 1<<20)).Decode(&review); err != nil {
			http.Error(answer, err.Error(), http.StatusBadRequest)
			return
		}
		patch := marshal([]map[string]any{{
			"op": "add", "path": "/metadata/labels/" + strings.ReplaceAll(mutated, "/", "~1"), "value": "yes",
		}})
		answer.Header().Set("Content-Type", "application/json")
		_, _ = answer.Write(marshal(map[string]any{
			"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
			"response": map[string]any{
				"uid": review.Request.UID, "allowed": true, "patchType": "JSONPatch", "patch": patch, // as base64
			},
		}))
	}
	server := http.Server{
		Addr: ":8443", Handler: http.HandlerFunc(handler),
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{certificate}},
	}
	return server.ListenAndServeTLS("", "")
}

const sharedFile = "/shared/ready"

// podSlowSidecar becomes ready late: its startup probe passes when the file is there.
func podSlowSidecar() error {
	time.Sleep(700 * time.Millisecond)
	if err := os.WriteFile(sharedFile, []byte("ready"), 0o644); err != nil {
		return err
	}
	return podWeb(":8080")
}

// podNeedsSidecar fails if it was started before its sidecar had been.
func podNeedsSidecar() error {
	if _, err := os.Stat(sharedFile); err != nil {
		return fmt.Errorf("started before its sidecar was: %w", err)
	}
	fmt.Println("the sidecar was there first")
	return podWeb(":8081")
}
