module rouse.dev/conformance/upstream

go 1.26.0
