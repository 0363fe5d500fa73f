# Everything starts here, on a fresh Debian 12 or newer:
#   make up      installs what is missing, applies banger.yaml.example, and says how to get in
#   make test    the same set-up, then every test
# Both are quick the second time. Packages come from wherever this host's apt and pip get theirs.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# The targets share one environment; what can run in parallel is pytest's business.
.NOTPARALLEL:

# The one list of Debian packages. `banger doctor` checks for the same programs; a test holds the two together.
PACKAGES := bubblewrap busybox-static ca-certificates debian-archive-keyring e2fsprogs git kmod mmdebstrap nftables \
            openssh-client python3-venv qemu-system-x86 squashfs-tools uidmap util-linux

VENV := .venv
BIN := $(VENV)/bin
SPEC := banger.yaml.example

.PHONY: help
help: ## Show the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

.PHONY: packages
packages: ## Install the Debian packages that are missing
	@missing=(); \
	for package in $(PACKAGES); do \
	  dpkg-query -W -f '$${db:Status-Status}' "$$package" 2>/dev/null | grep -qx installed || missing+=("$$package"); \
	done; \
	if (($${#missing[@]})); then \
	  sudo=(); \
	  if [ "$$(id -u)" != 0 ]; then \
	    command -v sudo >/dev/null || { echo "missing: $${missing[*]}; install them as root" >&2; exit 1; }; \
	    sudo=(sudo); \
	  fi; \
	  echo "installing $${missing[*]}"; \
	  "$${sudo[@]}" apt-get update; \
	  "$${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends "$${missing[@]}"; \
	fi

# A python3 that is new enough and can make virtual environments; the first on PATH is not always one.
# The stamp comes last: a half-made environment, left by a kill, is made again.
$(VENV)/.made:
	@for python in $$(type -ap python3 python3.13 python3.12 python3.11) /usr/bin/python3; do \
	  if "$$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    echo "making $(VENV) with $$python"; \
	    rm -rf $(VENV); \
	    "$$python" -m venv $(VENV); \
	    touch $@; \
	    exit 0; \
	  fi; \
	done; \
	echo "no python3 of 3.11 or newer can make virtual environments" >&2; exit 1

$(VENV)/.installed: pyproject.toml | $(VENV)/.made
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(VENV)/.made
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@ $(VENV)/.installed

.PHONY: install
install: packages
	@$(MAKE) --silent --no-print-directory $(VENV)/.installed

.PHONY: install-dev
install-dev: PACKAGES += cpio docker-registry git iproute2 libarchive-tools nano qemu-utils rsync shellcheck skopeo squashfs-tools-ng umoci vim
install-dev: packages
	@$(MAKE) --silent --no-print-directory $(VENV)/.installed-dev

.PHONY: up
up: install ## Apply banger.yaml.example and say how to get in
	@$(BIN)/banger apply -f $(SPEC)

.PHONY: test
test: install-dev ## Run every test, the ones with real VMs last
	$(BIN)/pytest -n auto -m "not host and not bench"
	BANGER_EXAMPLES=10000 $(BIN)/pytest -n auto -k fixed_point tests/plan/test_properties.py
	$(BIN)/pytest -n auto --dist loadfile --no-loadscope-reorder -m "host and not bench" --durations=15

.PHONY: test-fast
test-fast: install-dev ## Run the tests that need neither root nor VMs
	$(BIN)/pytest -n auto -m "not host and not bench"

.PHONY: bench
bench: install-dev ## Measure the promises against the raw tools
	$(BIN)/pytest -m bench --capture=no

.PHONY: lint
lint: install-dev ## Check style, types and layers
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

.PHONY: docs
docs: install-dev ## Write the generated pages again
	$(BIN)/python -m reconciler.spec.reference > docs/spec.md
	$(BIN)/python -m reconciler.cli.reference
	$(BIN)/python -m reconciler.cli.manpage

.PHONY: clean
clean: ## Remove what was installed and cached here; VMs, images and state stay
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
