# Thin verbs: each line calls a tool that can be called alone. A bare `make` prints them.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules --no-print-directory

VENV := .venv
BIN := $(VENV)/bin
PACKAGES := operator/src operator/plugin/src model/serving/src model/training/src tests/cluster tests/support tests/faultproxy tests/simulation charts/rollway/dashboards
THOROUGH := kill_points troubles at_rest leaders lost_status tokens
CRD_FOLDERS := crds charts/rollway/files/crds operator/plugin/src/kubectl_rollway/crds
DASHBOARDS := charts/rollway/files/dashboards
CHARTS := $(wildcard charts/*/Chart.yaml)
WORKFLOWS := $(wildcard .github/workflows/*.yml)
LOCKS := $(patsubst %.in,%.txt,$(wildcard requirements/*.in))
empty :=
export PYTHONPATH := $(subst $(empty) $(empty),:,$(abspath $(PACKAGES)))
export PATH := $(abspath $(BIN)):$(PATH)

# The environment is made again whenever the lock's content changes.
ENVIRONMENT := $(VENV)/ready-$(shell sha256sum requirements/dev.txt | cut -c1-16)
CLUSTER_CLI := $(BIN)/python -m rollway_cluster

# `CLUSTER=kind|local|current` and `ROLLWAY_CONTEXT=<kube context>` choose where demo and e2e run.
export CLUSTER ROLLWAY_CONTEXT PYTHON

##@ Every day

.PHONY: check
check: $(ENVIRONMENT) ## Format, lint, types, import contracts, generated files, charts and workflows
	ruff format --check .
	ruff check .
	mypy $(PACKAGES) charts/mlflow tests/unit tests/integration tests/e2e tests/load tests/conftest.py
	lint-imports
	$(MAKE) generate
	git diff --exit-code -- $(CRD_FOLDERS) $(DASHBOARDS)
	$$($(CLUSTER_CLI) path helm) lint --strict --quiet $(dir $(CHARTS))
	$$($(CLUSTER_CLI) path actionlint) -shellcheck= -pyflakes= $(WORKFLOWS)
	zizmor --offline --quiet .github

.PHONY: format
format: $(ENVIRONMENT) ## Format the code and apply the linter's safe fixes
	ruff format .
	ruff check --fix .

.PHONY: generate
generate: $(ENVIRONMENT) ## Write the CRDs from the Python types, and the dashboards' JSON
	python -m rollway_operator.crdgen $(CRD_FOLDERS)
	python -m rollway_dashboards $(DASHBOARDS)

##@ Tests

.PHONY: unit
unit: $(ENVIRONMENT) ## Pure modules; two thousand random rollouts among them take most of the time
	pytest --numprocesses=logical --maxprocesses=4 --dist=loadscope tests/unit

.PHONY: integration
integration: $(ENVIRONMENT) binaries environments ## Real MLflow, S3 and API server on loopback; no kubelet
	pytest --numprocesses=logical --maxprocesses=4 --dist=loadfile tests/integration

.PHONY: test-kill
test-kill: $(ENVIRONMENT) binaries images ## Every kill point and every API server trouble at full length; prints a log
	ROLLWAY_THOROUGH=1 pytest -s $(addprefix tests/integration/operator/test_,$(addsuffix .py,$(THOROUGH)))
	ROLLWAY_THOROUGH=1 pytest -s tests/e2e/test_kill_points.py

.PHONY: test-alerts
test-alerts: $(ENVIRONMENT) binaries images ## Each alert fires for real and ends, on a cluster; prints a table
	ROLLWAY_THOROUGH=1 pytest -s tests/e2e/test_alerts.py

.PHONY: load
load: $(ENVIRONMENT) binaries ## What the operator costs at 0, 100 and 1,000 objects; prints a table
	pytest -s tests/load

.PHONY: simulate
simulate: $(ENVIRONMENT) ## How often verdicts are wrong, and how long they take; redraws docs/concepts.md
	python -m rollway_simulation --write

.PHONY: e2e
e2e: $(ENVIRONMENT) binaries images ## A real cluster, brought up and taken down
	tests/e2e/run

.PHONY: test
test: ## All of it: check, unit, integration, e2e
	$(MAKE) binaries
	$(MAKE) check
	$(MAKE) unit
	$(MAKE) integration
	$(MAKE) e2e

##@ Demo

.PHONY: demo
demo: $(ENVIRONMENT) system ## From a trained model to predictions on a cluster, and a version change under traffic
	$(CLUSTER_CLI) demo

.PHONY: demo-down
demo-down: $(ENVIRONMENT) ## Remove what demo made
	$(CLUSTER_CLI) demo-down

##@ Cluster and images

.PHONY: images
images: $(ENVIRONMENT) system ## Build the container images
	$(CLUSTER_CLI) images

.PHONY: binaries
binaries: $(ENVIRONMENT) system ## Build the test cluster's programs into the user's cache
	$(CLUSTER_CLI) build

.PHONY: environments
environments: $(ENVIRONMENT) ## Make the environments that tests run other programs in
	requirements/environment seldon
	requirements/environment clients

.PHONY: cluster-up
cluster-up: binaries ## Start a cluster on this machine
	$(CLUSTER_CLI) up

.PHONY: cluster-down
cluster-down: $(ENVIRONMENT) ## Stop it and leave nothing behind
	$(CLUSTER_CLI) down

.PHONY: cluster-status
cluster-status: $(ENVIRONMENT) ## Say what runs
	$(CLUSTER_CLI) status

.PHONY: system
system: ## Install the Debian packages that the cluster and the images need (or name them)
	tests/cluster/system-packages

##@ Upkeep

.PHONY: lock
lock: $(ENVIRONMENT) ## Resolve requirements/*.in again
	requirements/lock $(basename $(notdir $(LOCKS)))

.PHONY: clean
clean: ## Remove the environment and the caches in this folder
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis .coverage
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +

.PHONY: help
help: ## Print these verbs
	@awk 'BEGIN {FS = ":.*## "} \
	  /^##@ / {printf "\n%s\n", substr($$0, 5)} \
	  /^[a-z0-9-]+:.*## / {printf "  %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(ENVIRONMENT):
	@echo "making $(VENV) from requirements/dev.txt"
	rm -rf $(VENV)
	requirements/new-environment $(VENV)
	$(BIN)/pip install --quiet --no-deps --require-hashes -r requirements/dev.txt
	touch $@
