# Everything a contributor or a curious user runs. `make demo` and `make test` need only Python 3.10+ and make.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
# The lowest grpcio-tools that pyproject's floors allow: stubs refuse a runtime older than their generator.
GRPCIO_TOOLS := 1.66.2

.PHONY: help demo test test-floor check audit lock protos build size clean daprd kube h2spec e2e e2e-kubernetes bench bench-quick image

help: ## Say what there is to make
	@sed -n 's/^\([a-z0-9-]*\):.* ## /\1|/p' $(MAKEFILE_LIST) | awk -F '|' '{printf "%-16s %s\n", $$1, $$2}'

demo: $(VENV)/.ready ## Run the example app on an embedded sidecar, invoke it, stop it
	$(BIN)/python examples/demo.py

test: $(VENV)/.ready ## The tests that need Python only
	$(BIN)/python -m pytest -m "not e2e and not kubernetes"

test-floor: $(VENV)-floor/.ready ## The tests with the lowest versions of everything, which leaves out the package dapr
	$(VENV)-floor/bin/python -m pytest -p no:anyio -m "not sdk" --ignore=tests/rpc --ignore=tests/e2e --ignore=tests/fuzz

check: $(VENV)/.ready protos audit ## Lint, types, stubs that match their protos, dependencies
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pip check
	sed -n 's/^\([^ ].*\) \\$$/\1/p' requirements.lock | diff - constraints.txt
	git diff --exit-code -- runtime/daprfunc/rpc

audit: .cache/audit/.ready ## Known vulnerabilities in what requirements.lock pins
	.ci/audit .cache/audit/bin/pip-audit requirements.lock

lock: ## Pin the newest versions that pyproject.toml allows: requirements.lock with hashes, constraints.txt without
	$(PYTHON) -m venv .cache/lock
	.cache/lock/bin/python -m pip install -q uv
	.cache/lock/bin/uv pip compile -q --upgrade pyproject.toml --group dev --universal --python-version 3.10 \
		--generate-hashes --no-header --no-annotate --no-emit-index-url --output-file requirements.lock
	sed -n 's/^\([^ ].*\) \\$$/\1/p' requirements.lock > constraints.txt

protos: .cache/protos/.ready ## Delete and regenerate the stubs
	.cache/protos/bin/python protos/generate.py

daprd: ## Build the real daprd into .cache/bin (minutes once; needs Go, or PyPI for one)
	$(PYTHON) tests/e2e/build.py daprd

kube: ## Build kube-apiserver and etcd into .cache/bin (minutes once)
	$(PYTHON) tests/e2e/build.py kube

h2spec: ## Build the HTTP/2 conformance tests into .cache/bin (a moment; needs Go, or PyPI for one)
	$(PYTHON) tests/e2e/build.py h2spec

e2e: $(VENV)/.ready daprd h2spec ## The tests against the real daprd
	$(BIN)/python -m pytest -m "e2e and not kubernetes" tests

e2e-kubernetes: $(VENV)/.ready daprd kube ## The tests against a real kube-apiserver
	$(BIN)/python -m pytest -m kubernetes tests/e2e

image: ## Build the container images and print their sizes (needs docker)
	$(PYTHON) deploy/image.py

bench: daprd ## Measure beside the peers and Go on a real daprd: about half an hour on an idle machine
	$(PYTHON) benchmarks/run.py

bench-quick: daprd ## The same on a subset, in under three minutes
	$(PYTHON) benchmarks/run.py --quick

build: $(VENV)/.ready ## The wheel and the sdist, in dist/
	rm -rf dist
	$(BIN)/python -m build --no-isolation

size: build ## What `pip install daprfunc` puts on a disk
	rm -rf .cache/size
	$(BIN)/python -m pip install -q --disable-pip-version-check --target .cache/size dist/*.whl
	@ls -l dist/*.whl | awk '{printf "the wheel:                   %4d KiB\n", $$5 / 1024}'
	@du -sk .cache/size/daprfunc | awk '{printf "daprfunc, installed:         %4d KiB\n", $$1}'
	@du -sm .cache/size | awk '{printf "with all that it depends on: %4d MiB (the official images for Python: 1,300 to 2,400)\n", $$1}'

# What is installed here is what requirements.lock pins, and pip refuses files with other hashes.
$(VENV)/.ready: pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "needs Python 3.10 or later, this is %d.%d: make PYTHON=python3.12, for example" % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

$(VENV)-floor/.ready: pyproject.toml constraints-floor.txt
	$(PYTHON) -m venv $(VENV)-floor
	$(VENV)-floor/bin/python -m pip install -q --disable-pip-version-check -c constraints-floor.txt -e .[pydantic] \
		googleapis-common-protos "httpx[http2]" hypothesis pytest pytest-timeout trustme
	touch $@

.cache/audit/.ready:
	$(PYTHON) -m venv .cache/audit
	.cache/audit/bin/python -m pip install -q --disable-pip-version-check pip-audit
	touch $@

.cache/protos/.ready: Makefile
	$(PYTHON) -m venv .cache/protos
	.cache/protos/bin/python -m pip install -q grpcio-tools==$(GRPCIO_TOOLS) setuptools
	touch $@

clean: ## Remove what the targets above made
	rm -rf .venv .venv-* .cache dist build
