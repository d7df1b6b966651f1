# What people run most. The gate that every change passes is .ci/run.

.PHONY: build quickstart test e2e crash soak fuzz bench bench-link bench-go lint

build:
	go build -o mirrorctl .

# The whole main job on a sample in the repository; leaves nothing behind.
quickstart:
	@sh testdata/quickstart/run.sh

test:
	go test -race ./...

# Needs root and the clients that .ci/run installs.
e2e:
	go test -tags e2e -count=1 -timeout 15m ./testdata/e2e

# What the end-to-end tests do for a moment, in full: 500 times kill -9, every
# power cut that a trace of system calls allows, and ten minutes of everything at
# once, two more of them with the race detector. About half an hour.
crash:
	go test -tags e2e -count=1 -timeout 2h -v -run 'TestCrash|TestPowerCut' ./testdata/e2e -kills 500 -powercuts 0

soak:
	go test -tags e2e -count=1 -timeout 1h -v -run TestSoak ./testdata/e2e -soak 10m
	go build -race -o mirrorctl-race .
	MIRRORCTL_E2E_BINARY=$(CURDIR)/mirrorctl-race go test -tags e2e -count=1 -timeout 1h -v -run TestSoak ./testdata/e2e -soak 2m
	rm mirrorctl-race

# One minute per fuzz target; make fuzz FUZZTIME=10m takes longer.
FUZZTIME = 1m
fuzz:
	@grep -roE '^func Fuzz[A-Za-z0-9]+' --include='*_test.go' . | sed 's|/[^/]*:func | |' | sort | while read -r pkg target; do \
		echo "== $$pkg $$target"; \
		go test -run='^$$' -fuzz="^$$target$$" -fuzztime=$(FUZZTIME) -fuzzminimizetime=5s "$$pkg" </dev/null || exit 1; \
	done

# mirrorctl beside the registries and tools that are installed; docs/PERFORMANCE.md.
bench:
	go run ./testdata/bench

# The same for a sync through slow lines; needs root and the clients of .ci/run.
bench-link:
	go test -tags e2e -run='^$$' -bench=SlowSync -timeout 1h ./testdata/e2e

# The pieces alone.
bench-go:
	go test -run='^$$' -bench=. -benchmem ./...

lint:
	gofmt -l . && go vet ./... && staticcheck ./...
