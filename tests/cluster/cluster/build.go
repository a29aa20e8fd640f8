package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
	"syscall"
	"time"
)

// module is one Go module whose executables the node runs. They are kept apart because their dependencies do not go
// together.
type module struct {
	name string
	// packages to build; the executable has the name of the last element, or the module's for ".".
	packages []string
	tags     string
	// version is the module in go.mod whose version the executables report as theirs.
	version string
	ldflags func(version string) string
}

var modules = []module{
	{name: "kubernetes", packages: []string{"."}, version: "k8s.io/kubernetes", ldflags: kubernetesVersion},
	{
		name:     "containerd",
		packages: []string{"./cmd/containerd", "./cmd/containerd-shim-runc-v2", "./cmd/ctr"},
		tags:     "no_btrfs no_devmapper no_zfs",
		version:  "github.com/containerd/containerd/v2",
		ldflags: func(version string) string {
			return "-X github.com/containerd/containerd/v2/version.Version=" + version
		},
	},
	{name: "coredns", packages: []string{"."}, version: "github.com/coredns/coredns"},
	{name: "pause", packages: []string{"."}},
}

// kubernetesVersion makes Kubernetes report the version that was built. Without it everything says v0.0.0, and clients
// that ask for a minimum refuse.
func kubernetesVersion(version string) string {
	const into = "k8s.io/component-base/version."
	numbers := strings.Split(strings.TrimPrefix(version, "v"), ".")
	return strings.Join([]string{
		"-X " + into + "gitVersion=" + version,
		"-X " + into + "gitMajor=" + numbers[0],
		"-X " + into + "gitMinor=" + numbers[1],
		"-X " + into + "gitTreeState=archive",
		"-X " + into + "gitCommit=unknown",
		"-X " + into + "buildDate=1970-01-01T00:00:00Z",
	}, " ")
}

// links are the names under which the Kubernetes executable is each of its programs.
var links = []string{
	"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl",
}

// Images that every node needs. They are made from our own executables, as there is no registry to pull from.
const (
	pauseImage   = "rouse.test/pause:1"
	corednsImage = "rouse.test/coredns:1"
)

// built says where everything is.
type built struct {
	Bin    string   // a folder with every executable
	Images []string // archives that are loaded at every start
}

// kept is how many builds of one module stay in the cache: enough to go back and forth between two branches.
const kept = 3

// build makes what the cache does not have. What is there is known by the content of the module's sources, the Go version
// and the way it is built.
func build(p places) (built, error) {
	if _, err := exec.LookPath("go"); err != nil {
		return built{}, errors.New("go is not in PATH: it is needed to build Kubernetes (1.26.6 or newer)")
	}
	if err := os.MkdirAll(p.Cache, 0o755); err != nil {
		return built{}, err
	}
	unlock, err := lock(filepath.Join(p.Cache, "lock"))
	if err != nil {
		return built{}, err
	}
	defer unlock()

	folders := map[string]string{}
	for _, module := range modules {
		folder, err := module.build(p)
		if err != nil {
			return built{}, fmt.Errorf("%s: %w", module.name, err)
		}
		folders[module.name] = folder
	}
	return gather(p, folders)
}

// build returns the folder with the module's executables.
func (m module) build(p places) (string, error) {
	source := filepath.Join(p.Source, m.name)
	key, err := m.key(source)
	if err != nil {
		return "", err
	}
	folder := filepath.Join(p.Cache, "build", m.name+"-"+key)
	if _, err := os.Stat(folder); err == nil {
		now := time.Now()
		_ = os.Chtimes(folder, now, now) // the least recently used goes first
		return folder, nil
	}
	version, err := m.pinned(source)
	if err != nil {
		return "", err
	}
	fmt.Println(strings.TrimSpace("building " + m.name + " " + version))
	start := time.Now()
	draft := folder + ".draft"
	if err := os.RemoveAll(draft); err != nil {
		return "", err
	}
	if err := os.MkdirAll(draft, 0o755); err != nil {
		return "", err
	}
	for _, pkg := range m.packages {
		name := m.name
		if pkg != "." {
			name = filepath.Base(pkg)
		}
		if err := m.compile(source, pkg, filepath.Join(draft, name), version); err != nil {
			return "", err
		}
	}
	if err := os.Rename(draft, folder); err != nil {
		return "", err
	}
	fmt.Printf("built %s in %s\n", m.name, since(start))
	return folder, m.prune(filepath.Join(p.Cache, "build"))
}

func (m module) compile(source, pkg, output, version string) error {
	command := exec.Command("go", append(m.flags(version), "-o", output, pkg)...)
	command.Dir = source
	// Static, so that it runs in an image that holds nothing else.
	command.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	command.Stdout, command.Stderr = os.Stdout, os.Stderr
	return command.Run()
}

func (m module) flags(version string) []string {
	ldflags := "-s -w"
	if m.ldflags != nil {
		ldflags += " " + m.ldflags(version)
	}
	return []string{"build", "-trimpath", "-buildvcs=false", "-tags=" + m.tags, "-ldflags=" + ldflags}
}

// pinned reads from go.mod which version of the software is built: it is written down there only.
func (m module) pinned(source string) (string, error) {
	if m.version == "" {
		return "", nil
	}
	text, err := os.ReadFile(filepath.Join(source, "go.mod"))
	if err != nil {
		return "", err
	}
	found := regexp.MustCompile(regexp.QuoteMeta(m.version) + ` (v\S+)`).FindSubmatch(text)
	if found == nil {
		return "", fmt.Errorf("go.mod does not require %s", m.version)
	}
	return string(found[1]), nil
}

// key is a hash over all that decides what the executables are.
func (m module) key(source string) (string, error) {
	command := exec.Command("go", "version")
	command.Dir = source // go.mod can ask for another toolchain
	goVersion, err := command.Output()
	if err != nil {
		return "", fmt.Errorf("go version: %w", err)
	}
	sum := sha256.New()
	fmt.Fprintf(sum, "%s\n%s\n%v\n", goVersion, m.flags("v0.0.0"), m.packages)
	var files []string
	err = filepath.WalkDir(source, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		return "", err
	}
	sort.Strings(files)
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return "", err
		}
		name, _ := filepath.Rel(source, file)
		fmt.Fprintf(sum, "%s %d\n", name, len(text))
		sum.Write(text)
	}
	return hex.EncodeToString(sum.Sum(nil)[:6]), nil
}

// prune removes the oldest builds of this module.
func (m module) prune(builds string) error {
	folders, err := filepath.Glob(filepath.Join(builds, m.name+"-????????????"))
	if err != nil {
		return err
	}
	age := func(path string) time.Time {
		info, err := os.Stat(path)
		if err != nil {
			return time.Time{}
		}
		return info.ModTime()
	}
	sort.Slice(folders, func(a, b int) bool { return age(folders[a]).After(age(folders[b])) })
	for _, old := range folders[min(kept, len(folders)):] {
		if err := os.RemoveAll(old); err != nil {
			return err
		}
	}
	return nil
}

// gather makes one folder with a link for every executable, and the archives of the images. The folder's name follows from
// what is in it, so that a running cluster keeps its own when something else is built.
func gather(p places, folders map[string]string) (built, error) {
	sum := sha256.New()
	for _, module := range modules {
		fmt.Fprintln(sum, folders[module.name])
	}
	bin := filepath.Join(p.Cache, "bin-"+hex.EncodeToString(sum.Sum(nil)[:6]))
	images := []string{filepath.Join(folders["pause"], "image.tar"), filepath.Join(folders["coredns"], "image.tar")}
	done := built{Bin: bin, Images: images}
	for _, image := range []struct{ file, name, binary string }{
		{images[0], pauseImage, "pause"}, {images[1], corednsImage, "coredns"},
	} {
		if _, err := os.Stat(image.file); err == nil {
			continue
		}
		content := content{name: image.name, binaries: []binary{{image.binary, filepath.Join(folders[image.binary], image.binary)}}}
		if err := content.save(image.file); err != nil {
			return built{}, err
		}
	}
	if _, err := os.Stat(bin); err == nil {
		return done, nil
	}
	old, _ := filepath.Glob(filepath.Join(p.Cache, "bin-*"))
	for _, folder := range old {
		// Dead ones only: their builds were pruned.
		if _, err := os.Stat(filepath.Join(folder, "kubectl")); err != nil {
			_ = os.RemoveAll(folder)
		}
	}
	draft := bin + ".draft"
	if err := os.RemoveAll(draft); err != nil {
		return built{}, err
	}
	if err := os.MkdirAll(draft, 0o755); err != nil {
		return built{}, err
	}
	targets := map[string]string{}
	for _, name := range links {
		targets[name] = filepath.Join(folders["kubernetes"], "kubernetes")
	}
	for _, name := range []string{"containerd", "containerd-shim-runc-v2", "ctr"} {
		targets[name] = filepath.Join(folders["containerd"], name)
	}
	for name, target := range targets {
		if err := os.Symlink(target, filepath.Join(draft, name)); err != nil {
			return built{}, err
		}
	}
	return done, os.Rename(draft, bin)
}

// lock waits until nobody else holds the file.
func lock(path string) (unlock func(), err error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|syscall.O_CLOEXEC, 0o644)
	if err != nil {
		return nil, err
	}
	if syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil {
		fmt.Println("waiting for another build")
		if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX); err != nil {
			file.Close()
			return nil, err
		}
	}
	return func() { file.Close() }, nil
}

func since(start time.Time) string {
	return fmt.Sprintf("%.1f s", time.Since(start).Seconds())
}
