package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// authority signs the certificates of one cluster. Its key is forgotten when the node has booted.
type authority struct {
	key         *ecdsa.PrivateKey
	certificate *x509.Certificate
	pem         []byte
}

// pair is a certificate and its key, as PEM.
type pair struct{ certificate, key []byte }

// lifetime is longer than any test, and short enough that nobody relies on it.
const lifetime = 7 * 24 * time.Hour

func newAuthority() (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := template(pkix.Name{CommonName: "test cluster"})
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &authority{key, certificate, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}, nil
}

func template(subject pkix.Name) *x509.Certificate {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		panic(err) // no random numbers: nothing here could be trusted
	}
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: serial, Subject: subject,
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(lifetime),
	}
}

// client makes the certificate of a user. To Kubernetes the common name is the user and the organization its group.
func (a *authority) client(user, group string) (pair, error) {
	subject := pkix.Name{CommonName: user}
	if group != "" {
		subject.Organization = []string{group}
	}
	template := template(subject)
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	return a.sign(template)
}

// server makes the certificate of a server with these names and addresses.
func (a *authority) server(common string, names []string, addresses ...string) (pair, error) {
	template := template(pkix.Name{CommonName: common})
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	template.DNSNames = names
	for _, address := range addresses {
		template.IPAddresses = append(template.IPAddresses, net.ParseIP(address))
	}
	return a.sign(template)
}

func (a *authority) sign(template *x509.Certificate) (pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return pair{}, err
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, key.Public(), a.key)
	if err != nil {
		return pair{}, err
	}
	encoded, err := encodeKey(key)
	if err != nil {
		return pair{}, err
	}
	return pair{pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), encoded}, nil
}

func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), nil
}

func (p pair) write(folder, name string) error {
	if err := os.WriteFile(filepath.Join(folder, name+".crt"), p.certificate, 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(folder, name+".key"), p.key, 0o600)
}

// kubeconfig is one for this user, as JSON, which is YAML too. Everything is inside, so that the file can be copied.
func (p pair) kubeconfig(user string, ca []byte) []byte {
	encode := base64.StdEncoding.EncodeToString
	return marshal(map[string]any{
		"apiVersion": "v1", "kind": "Config", "current-context": "rouse-test",
		"clusters": []any{map[string]any{"name": "rouse-test", "cluster": map[string]any{
			"server": apiURL, "certificate-authority-data": encode(ca),
		}}},
		"users": []any{map[string]any{"name": user, "user": map[string]any{
			"client-certificate-data": encode(p.certificate), "client-key-data": encode(p.key),
		}}},
		"contexts": []any{map[string]any{"name": "rouse-test", "context": map[string]any{
			"cluster": "rouse-test", "user": user,
		}}},
	})
}

// writePKI makes all keys, certificates and kubeconfigs of a cluster, and returns the administrator's.
func writePKI(folder, adminConfig string) (ca []byte, admin pair, err error) {
	authority, err := newAuthority()
	if err != nil {
		return nil, pair{}, err
	}
	if err := os.WriteFile(filepath.Join(folder, "ca.crt"), authority.pem, 0o644); err != nil {
		return nil, pair{}, err
	}
	tokens, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, pair{}, err
	}
	signing, err := encodeKey(tokens)
	if err != nil {
		return nil, pair{}, err
	}
	if err := os.WriteFile(filepath.Join(folder, "service-account.key"), signing, 0o600); err != nil {
		return nil, pair{}, err
	}

	service := "kubernetes.default.svc"
	api, err := authority.server("kube-apiserver",
		[]string{"kubernetes", "kubernetes.default", service, service + "." + clusterDomain, "localhost"},
		nodeIP, apiServiceIP, "127.0.0.1")
	if err != nil {
		return nil, pair{}, err
	}
	kubelet, err := authority.server(nodeName, []string{nodeName}, nodeIP)
	if err != nil {
		return nil, pair{}, err
	}
	toKubelet, err := authority.client("kube-apiserver", "system:masters")
	if err != nil {
		return nil, pair{}, err
	}
	for name, pair := range map[string]pair{"apiserver": api, "kubelet": kubelet, "apiserver-to-kubelet": toKubelet} {
		if err := pair.write(folder, name); err != nil {
			return nil, pair, err
		}
	}
	for _, client := range []struct{ file, user, group string }{
		{adminConfig, "admin", "system:masters"},
		{filepath.Join(folder, "controller-manager.kubeconfig"), "system:kube-controller-manager", ""},
		{filepath.Join(folder, "scheduler.kubeconfig"), "system:kube-scheduler", ""},
		{filepath.Join(folder, "proxy.kubeconfig"), "system:kube-proxy", ""},
		{filepath.Join(folder, "kubelet.kubeconfig"), "system:node:" + nodeName, "system:nodes"},
	} {
		pair, err := authority.client(client.user, client.group)
		if err != nil {
			return nil, pair, err
		}
		if err := os.WriteFile(client.file, pair.kubeconfig(client.user, authority.pem), 0o600); err != nil {
			return nil, pair, fmt.Errorf("kubeconfig of %s: %w", client.user, err)
		}
		if client.file == adminConfig {
			admin = pair
		}
	}
	return authority.pem, admin, nil
}
