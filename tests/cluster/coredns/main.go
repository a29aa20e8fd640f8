// Command coredns answers the DNS of the test cluster: Services by their names, and nothing else, as nothing can leave the
// cluster anyway.
//
// It is CoreDNS with only the plugins that this takes. The full one has about sixty, several with a cloud's client behind
// them, and takes ten times as long to build.
package main

import (
	"github.com/coredns/coredns/coremain"
	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/health"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/log"
	_ "github.com/coredns/coredns/plugin/ready"
)

func main() { coremain.Run() }
