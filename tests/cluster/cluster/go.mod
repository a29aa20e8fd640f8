module rouse.dev/tests/cluster/cluster

// Only the standard library: this program is built on every machine that runs the tests, before anything else.

go 1.26.0
