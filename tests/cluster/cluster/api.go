package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

//go:embed manifests/coredns.yaml
var corednsManifests string

// manifest is an object and its path in the API.
type manifest struct{ path, text string }

// manifests are what every cluster has. In the file each begins with a comment that is its path.
var manifests = split(corednsManifests)

func split(file string) []manifest {
	var list []manifest
	for _, text := range strings.Split(file, "---\n") {
		if line, _, _ := strings.Cut(text, "\n"); strings.HasPrefix(line, "# /") {
			text = strings.ReplaceAll(text, "COREDNS_IMAGE", corednsImage)
			text = strings.ReplaceAll(text, "DNS_SERVICE_IP", dnsServiceIP)
			text = strings.ReplaceAll(text, "CLUSTER_DOMAIN", clusterDomain)
			list = append(list, manifest{path: strings.TrimPrefix(line, "# "), text: text})
		}
	}
	return list
}

// api talks to the apiserver as the administrator, as far as a boot needs it.
type api struct{ client http.Client }

func newAPI(ca []byte, admin pair) (*api, error) {
	certificate, err := tls.X509KeyPair(admin.certificate, admin.key)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	config := &tls.Config{Certificates: []tls.Certificate{certificate}, RootCAs: roots}
	return &api{http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{TLSClientConfig: config}}}, nil
}

func (a *api) call(ctx context.Context, method, path, kind, body string, into any) error {
	request, err := http.NewRequestWithContext(ctx, method, apiURL+path, bytes.NewBufferString(body))
	if err != nil {
		return err
	}
	if kind != "" {
		request.Header.Set("Content-Type", kind)
	}
	answer, err := a.client.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, 1<<20))
	if err != nil {
		return err
	}
	if answer.StatusCode >= 300 {
		return fmt.Errorf("%s %s: %s: %s", method, path, answer.Status, text)
	}
	return json.Unmarshal(text, into)
}

func (a *api) apply(ctx context.Context, manifest manifest) error {
	var ignored any
	return a.call(ctx, http.MethodPatch, manifest.path+"?fieldManager=cluster&force=true",
		"application/apply-patch+yaml", manifest.text, &ignored)
}

func (a *api) has(path string) func(context.Context) error {
	return func(ctx context.Context) error {
		var ignored any
		return a.call(ctx, http.MethodGet, path, "", "", &ignored)
	}
}

type status struct {
	Spec struct {
		Taints []struct{ Key string }
	}
	Status struct {
		AvailableReplicas int
		Conditions        []struct{ Type, Status string }
	}
}

func (a *api) nodeReady(ctx context.Context) error {
	var node status
	if err := a.call(ctx, http.MethodGet, "/api/v1/nodes/"+nodeName, "", "", &node); err != nil {
		return err
	}
	if len(node.Spec.Taints) > 0 {
		return fmt.Errorf("the node is tainted: %v", node.Spec.Taints)
	}
	for _, condition := range node.Status.Conditions {
		if condition.Type == "Ready" && condition.Status == "True" {
			return nil
		}
	}
	return errors.New("the node is not Ready")
}

func (a *api) dnsAvailable(ctx context.Context) error {
	var deployment status
	if err := a.call(ctx, http.MethodGet, "/apis/apps/v1/namespaces/kube-system/deployments/coredns", "", "", &deployment); err != nil {
		return err
	}
	if deployment.Status.AvailableReplicas == 0 {
		return errors.New("CoreDNS has no available replica")
	}
	return nil
}
