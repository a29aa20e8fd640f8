package main

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"time"
)

// content is an image: static executables and nothing else, as deploy/images/Dockerfile makes it from the same files.
type content struct {
	name     string
	binaries []binary
}

type binary struct{ name, path string }

const (
	// binFolder is where executables are inside an image. It is in PATH, so that `command: [rouse-activator]` finds them.
	binFolder = "usr/local/bin/"
	// user is nobody in particular, and a number: Kubernetes can only check a number for not being root.
	user = "65532:65532"
)

type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int64             `json:"size"`
	Platform    *platform         `json:"platform,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

type platform struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
}

// save writes the image as an OCI layout in one tar archive. The same content always gives the same bytes.
func (c content) save(path string) (err error) {
	draft := path + ".draft"
	layer, err := os.CreateTemp("", "rouse-layer-")
	if err != nil {
		return err
	}
	defer os.Remove(layer.Name())
	defer layer.Close()
	sum := sha256.New()
	if err := c.writeLayer(io.MultiWriter(layer, sum)); err != nil {
		return err
	}
	size, err := layer.Seek(0, io.SeekCurrent)
	if err != nil {
		return err
	}
	if _, err := layer.Seek(0, io.SeekStart); err != nil {
		return err
	}
	layerDescriptor := descriptor{
		MediaType: "application/vnd.oci.image.layer.v1.tar",
		Digest:    "sha256:" + hex.EncodeToString(sum.Sum(nil)),
		Size:      size,
	}
	here := platform{Architecture: runtime.GOARCH, OS: "linux"}
	config := marshal(map[string]any{
		"architecture": here.Architecture,
		"os":           here.OS,
		"config": map[string]any{
			"User":       user,
			"Env":        []string{"PATH=/" + strings.TrimSuffix(binFolder, "/"), "MIMALLOC_PURGE_DELAY=0"},
			"Entrypoint": []string{"/" + binFolder + c.binaries[0].name},
			"WorkingDir": "/",
		},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{layerDescriptor.Digest}},
	})
	configDescriptor := describe("application/vnd.oci.image.config.v1+json", config)
	manifest := marshal(map[string]any{
		"schemaVersion": 2,
		"mediaType":     "application/vnd.oci.image.manifest.v1+json",
		"config":        configDescriptor,
		"layers":        []descriptor{layerDescriptor},
	})
	manifestDescriptor := describe("application/vnd.oci.image.manifest.v1+json", manifest)
	top := manifestDescriptor
	top.Platform = &here
	top.Annotations = map[string]string{
		"io.containerd.image.name":          c.name,
		"org.opencontainers.image.ref.name": c.name[strings.LastIndex(c.name, ":")+1:],
	}
	index := marshal(map[string]any{
		"schemaVersion": 2,
		"mediaType":     "application/vnd.oci.image.index.v1+json",
		"manifests":     []descriptor{top},
	})

	file, err := os.Create(draft)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			file.Close()
			os.Remove(draft)
		}
	}()
	archive := tar.NewWriter(file)
	for _, small := range []struct {
		name string
		text []byte
	}{
		{"oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)},
		{"index.json", index},
		{blob(manifestDescriptor), manifest},
		{blob(configDescriptor), config},
	} {
		if err := archive.WriteHeader(entry(small.name, 0o644, int64(len(small.text)))); err != nil {
			return err
		}
		if _, err := archive.Write(small.text); err != nil {
			return err
		}
	}
	if err := archive.WriteHeader(entry(blob(layerDescriptor), 0o644, size)); err != nil {
		return err
	}
	if _, err := io.Copy(archive, layer); err != nil {
		return err
	}
	if err := archive.Close(); err != nil {
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	return os.Rename(draft, path)
}

// writeLayer writes the image's files. A file that has several names is there once.
func (c content) writeLayer(to io.Writer) error {
	layer := tar.NewWriter(to)
	folder := ""
	for _, part := range strings.Split(strings.TrimSuffix(binFolder, "/"), "/") {
		folder += part + "/"
		header := entry(folder, 0o755, 0)
		header.Typeflag = tar.TypeDir
		if err := layer.WriteHeader(header); err != nil {
			return err
		}
	}
	first := map[string]string{}
	for _, each := range c.binaries {
		name := binFolder + each.name
		if target, again := first[each.path]; again {
			header := entry(name, 0o755, 0)
			header.Typeflag, header.Linkname = tar.TypeLink, target
			if err := layer.WriteHeader(header); err != nil {
				return err
			}
			continue
		}
		first[each.path] = name
		if err := addFile(layer, name, each.path); err != nil {
			return err
		}
	}
	return layer.Close()
}

func addFile(layer *tar.Writer, name, path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a file", path)
	}
	if err := layer.WriteHeader(entry(name, 0o755, info.Size())); err != nil {
		return err
	}
	_, err = io.Copy(layer, file)
	return err
}

// qualified is the name under which the kubelet's runtime looks for an image: as with Docker, a name without a registry is one of
// docker.io's, and without a folder one of its library.
func qualified(name string) string {
	first, _, folder := strings.Cut(name, "/")
	switch {
	case name == "" || folder && (strings.ContainsAny(first, ".:") || first == "localhost"):
		return name
	case folder:
		return "docker.io/" + name
	default:
		return "docker.io/library/" + name
	}
}

func entry(name string, mode int64, size int64) *tar.Header {
	return &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: size, ModTime: time.Unix(0, 0), Format: tar.FormatPAX}
}

func describe(mediaType string, text []byte) descriptor {
	sum := sha256.Sum256(text)
	return descriptor{MediaType: mediaType, Digest: "sha256:" + hex.EncodeToString(sum[:]), Size: int64(len(text))}
}

func blob(d descriptor) string { return "blobs/sha256/" + strings.TrimPrefix(d.Digest, "sha256:") }

// marshal is for values that always can be.
func marshal(value any) []byte {
	text, err := json.Marshal(value)
	if err != nil {
		panic(err)
	}
	return text
}

// loadImage imports archives, or one image that is made of executables.
func loadImage(p places, args []string) error {
	var files []string
	var image content
	save := ""
	for len(args) > 0 {
		flag := args[0]
		args = args[1:]
		if !strings.HasPrefix(flag, "--") {
			files = append(files, flag)
			continue
		}
		name, value, joined := strings.Cut(flag, "=")
		if !joined {
			if len(args) == 0 {
				return errUsage
			}
			value, args = args[0], args[1:]
		}
		switch name {
		case "--name":
			image.name = qualified(value)
		case "--save":
			save = value
		case "--binary":
			as, path, found := strings.Cut(value, "=")
			if !found || as == "" || strings.Contains(as, "/") {
				return fmt.Errorf("%w: --binary wants NAME=PATH, not %q", errUsage, value)
			}
			image.binaries = append(image.binaries, binary{as, path})
		default:
			return errUsage
		}
	}
	if len(image.binaries) > 0 {
		if !strings.Contains(image.name, ":") {
			return fmt.Errorf("%w: --name wants an image with a tag, such as rouse.test/rouse:1", errUsage)
		}
		if save == "" {
			temporary, err := os.CreateTemp("", "rouse-image-")
			if err != nil {
				return err
			}
			temporary.Close()
			defer os.Remove(temporary.Name())
			save = temporary.Name()
		}
		if err := image.save(save); err != nil {
			return err
		}
		files = append(files, save)
	} else if image.name != "" || save != "" {
		return errUsage
	}
	if len(files) == 0 {
		return errors.New("nothing to load")
	}
	running, err := find(p)
	if err != nil {
		return err
	}
	for _, file := range files {
		if err := importImage(running.Bin, running.outside(containerdSocket), file); err != nil {
			return err
		}
	}
	return nil
}
