# What people run most. The gate that every change passes is .ci/run.

.PHONY: build quickstart test e2e fuzz bench lint

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

# One minute per fuzz target; make fuzz FUZZTIME=10m takes longer.
FUZZTIME = 1m
fuzz:
	@grep -roE '^func Fuzz[A-Za-z0-9]+' --include='*_test.go' . | sed 's|/[^/]*:func | |' | sort | while read -r pkg target; do \
		echo "== $$pkg $$target"; \
		go test -run='^$$' -fuzz="^$$target$$" -fuzztime=$(FUZZTIME) -fuzzminimizetime=5s "$$pkg" </dev/null || exit 1; \
	done

bench:
	go test -run='^$$' -bench=. -benchmem ./...

lint:
	gofmt -l . && go vet ./... && staticcheck ./...
