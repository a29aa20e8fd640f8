package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// places are the folders that one cluster uses. All are absolute.
type places struct {
	// Source is tests/cluster.
	Source string
	// Cache holds what was built. Several clusters may share it.
	Cache string
	// State belongs to one cluster: its record, kubeconfig and logs. Everything else it has lives in memory, inside its
	// mount namespace, and vanishes with it.
	State string
}

func findPlaces(state string) (places, error) {
	source, err := findSource()
	if err != nil {
		return places{}, err
	}
	cache := os.Getenv("ROUSE_CLUSTER_CACHE")
	if cache == "" {
		cache = filepath.Join(source, "..", "..", "target", "cluster")
	}
	if state == "" {
		state = os.Getenv("ROUSE_CLUSTER_STATE")
	}
	if state == "" {
		state = filepath.Join(cache, "state")
	}
	var found places
	for _, each := range []struct {
		to   *string
		path string
	}{{&found.Source, source}, {&found.Cache, cache}, {&found.State, state}} {
		if *each.to, err = resolved(each.path); err != nil {
			return places{}, err
		}
	}
	for _, folder := range []string{found.Cache, found.State} {
		for _, hidden := range []string{"/run/", "/var/", "/proc/", "/sys/"} {
			if strings.HasPrefix(folder+"/", hidden) {
				return places{}, fmt.Errorf("%s must not be below %s: the node has one of its own there", folder, hidden)
			}
		}
	}
	return found, nil
}

// findSource finds tests/cluster: as told, or from the working folder upwards.
func findSource() (string, error) {
	if told := os.Getenv("ROUSE_CLUSTER_SOURCE"); told != "" {
		return told, nil
	}
	folder, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		for _, candidate := range []string{folder, filepath.Join(folder, "tests", "cluster")} {
			if _, err := os.Stat(filepath.Join(candidate, "kubernetes", "go.mod")); err == nil {
				return candidate, nil
			}
		}
		if folder == "/" {
			return "", errors.New("tests/cluster is not above or below the working folder; name it in ROUSE_CLUSTER_SOURCE")
		}
		folder = filepath.Dir(folder)
	}
}

// resolved makes a path absolute and free of links as far as it exists, so that the same folder always has one name.
func resolved(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	rest := ""
	for existing := path; ; existing = filepath.Dir(existing) {
		if real, err := filepath.EvalSymlinks(existing); err == nil {
			return filepath.Join(real, rest), nil
		}
		rest = filepath.Join(filepath.Base(existing), rest)
	}
}

func (p places) record() string     { return filepath.Join(p.State, "cluster.json") }
func (p places) plan() string       { return filepath.Join(p.State, "plan.json") }
func (p places) kubeconfig() string { return filepath.Join(p.State, "kubeconfig") }
func (p places) logs() string       { return filepath.Join(p.State, "logs") }

func (p places) log(component string) string {
	if component == "audit" {
		return filepath.Join(p.logs(), "audit.jsonl")
	}
	return filepath.Join(p.logs(), component+".log")
}
