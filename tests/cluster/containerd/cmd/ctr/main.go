// Command ctr is containerd's own client. The test cluster loads images with it.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/containerd/containerd/v2/cmd/ctr/app"
)

func main() {
	if err := app.New().Run(context.Background(), os.Args); err != nil {
		fmt.Fprintf(os.Stderr, "ctr: %v\n", err)
		os.Exit(1)
	}
}
