# Everything a contributor or a curious user runs. `make demo` and `make test` need only Python 3.10+ and make.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PROTOS := $(wildcard protos/daprfunc/rpc/*.proto)
# The lowest grpcio-tools that pyproject's floors allow: stubs refuse a runtime older than their generator.
GRPCIO_TOOLS := 1.66.2

.PHONY: demo test check protos build clean daprd kube h2spec e2e e2e-kubernetes bench bench-quick

demo: $(VENV)/.ready ## Run the example app on an embedded sidecar, invoke it, stop it
	$(BIN)/python examples/demo.py

test: $(VENV)/.ready ## The tests that need Python only
	$(BIN)/python -m pytest -m "not e2e and not kubernetes"

check: $(VENV)/.ready protos ## Lint, types, and stubs that match their protos
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	git diff --exit-code -- runtime/daprfunc/rpc

protos: .cache/protos/.ready ## Delete and regenerate the stubs
	rm -f runtime/daprfunc/rpc/*_pb2.py runtime/daprfunc/rpc/*_pb2.pyi runtime/daprfunc/rpc/*_pb2_grpc.py
	.cache/protos/bin/python -m grpc_tools.protoc -Iprotos --python_out=runtime --pyi_out=runtime --grpc_python_out=runtime $(PROTOS)
	sed -i 's/^from google.protobuf import descriptor_pool as _descriptor_pool$$/from daprfunc.rpc import pool as _descriptor_pool/' runtime/daprfunc/rpc/*_pb2.py
	rm -f runtime/daprfunc/rpc/common_pb2_grpc.py

daprd: ## Build the real daprd into .cache/bin (minutes once; needs Go, or PyPI for one)
	$(PYTHON) tests/e2e/build.py daprd

kube: ## Build kube-apiserver and etcd into .cache/bin (minutes once)
	$(PYTHON) tests/e2e/build.py kube

h2spec: ## Build the HTTP/2 conformance tests into .cache/bin (a moment; needs Go, or PyPI for one)
	$(PYTHON) tests/e2e/build.py h2spec

e2e: $(VENV)/.ready daprd h2spec ## The tests against the real daprd
	$(BIN)/python -m pytest -m "e2e and not kubernetes" tests/e2e

e2e-kubernetes: $(VENV)/.ready daprd kube ## The tests against a real kube-apiserver
	$(BIN)/python -m pytest -m kubernetes tests/e2e

bench: daprd ## Measure beside the peers and Go on a real daprd: about half an hour on an idle machine
	$(PYTHON) benchmarks/run.py

bench-quick: daprd ## The same on a subset, in under three minutes
	$(PYTHON) benchmarks/run.py --quick

build: $(VENV)/.ready ## The wheel and the sdist, in dist/
	$(BIN)/python -m pip install -q build
	$(BIN)/python -m build

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade "pip>=25.1"
	$(BIN)/python -m pip install -q -c constraints.txt -e . --group dev
	touch $@

.cache/protos/.ready: Makefile
	$(PYTHON) -m venv .cache/protos
	.cache/protos/bin/python -m pip install -q grpcio-tools==$(GRPCIO_TOOLS) setuptools
	touch $@

clean: ## Remove what the targets above made
	rm -rf .venv .venv-* .cache dist build
