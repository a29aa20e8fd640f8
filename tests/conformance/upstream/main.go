// A server that tells what it was sent, as Go's net/http reads it: one of the three readers that the smuggling tests compare.
// Our own code; see tests/tests/conformance/smuggling.rs for what is compared, and for the form of a line.
package main

import (
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"
)

func main() {
	listener, err := net.Listen("tcp", os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	// A line is one write, which the kernel keeps apart from those of other requests.
	server := &http.Server{
		Handler: http.HandlerFunc(func(answer http.ResponseWriter, request *http.Request) {
			body, err := io.ReadAll(request.Body)
			whole := "whole"
			if err != nil {
				whole = "broken"
			}
			fmt.Printf("saw %s %s %s %s\n", whole, request.Method, request.RequestURI, hex.EncodeToString(body)+".")
			answer.Header().Set("x-seen", "yes")
			answer.Header().Set("content-length", "0")
		}),
		ReadHeaderTimeout: time.Minute,
	}
	fmt.Fprintln(os.Stderr, server.Serve(listener))
	os.Exit(1)
}
