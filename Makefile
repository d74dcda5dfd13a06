# Every target does all its own set-up. `make run` and `make test` are the two that the README promises.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.complete
ROOT := $(shell [ "$$(id -u)" = 0 ] && echo yes)

# What the end-to-end tests and the demo run against, from Debian, by name.
E2E_PACKAGES := gcc libc6-dev qemu-system-x86 ovmf ipxe ipxe-qemu mmdebstrap partclone zstd dnsmasq-base iproute2 \
  tftp-hpa atftp busybox curl fdisk gdisk dosfstools e2fsprogs ntfs-3g udpcast cpio grub-pc-bin grub-efi-amd64-bin grub2-common \
  binutils systemd-boot-efi lzop lz4 qemu-utils btrfs-progs exfatprogs f2fs-tools fsarchiver partimage \
  mtools procps xfsprogs cryptsetup-bin lvm2 python3-venv shellcheck systemd nftables iptables tcpdump util-linux postgresql

# What the benchmark needs; tftpd-hpa, atftpd and nginx are unpacked below .cache, so that nothing of them is enabled here.
BENCH_PACKAGES := gcc libc6-dev dnsmasq-base iproute2 util-linux libwrap0 libpcre2-8-0 libssl3 libcrypt1 zlib1g \
  e2fsprogs xfsprogs btrfs-progs mmdebstrap partclone zstd postgresql openssl \
  qemu-system-x86 ipxe-qemu ipxe ovmf fdisk procps

.PHONY: help venv run test unit e2e check lint demo bench packages bench-packages clean
.DEFAULT_GOAL := help

help: ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

venv: $(STAMP) ## the environment in .venv, from the pinned and hashed requirements

# Prefer the newest Python that fits; say what is missing instead of failing in the middle.
$(STAMP): requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "pbserv needs Python 3.11 or newer"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || $(MAKE) --no-print-directory venv-package
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

.PHONY: venv-package
venv-package:
ifeq ($(ROOT),yes)
	apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv >/dev/null
else
	@echo "Python's venv module is missing; as root: apt-get install python3-venv"; exit 1
endif

run: venv ## the service in the foreground, on embedded defaults below ./var
	@exec $(BIN)/pbserv run --local var

test: check ## everything: checks, all tests, and as root the end-to-end tests
ifeq ($(ROOT),yes)
	@$(MAKE) --no-print-directory e2e
else
	@echo
	@echo "Not root, so these did not run: tests marked 'root' (network namespaces, low ports, loop devices)"
	@echo "and 'e2e' (virtual machines). Run them with: sudo make test"
endif

unit: venv packages ## the tests without virtual machines, one process per core
	$(BIN)/pytest -m "not e2e" --numprocesses auto --dist loadfile

e2e: venv packages ## virtual machines with real firmware against the real server (root)
ifeq ($(ROOT),yes)
	$(BIN)/pytest -m e2e --timeout 2400 -v tests/client tests/commands tests/e2e
else
	@echo "make e2e needs root: it makes network namespaces and loop devices"; exit 1
endif

packages: PACKAGES := $(E2E_PACKAGES)
bench-packages: PACKAGES := $(BENCH_PACKAGES)
packages bench-packages:
ifeq ($(ROOT),yes)
	@missing=$$({ dpkg-query -W -f '$${Package} $${db:Status-Status}\n' $(PACKAGES) 2>/dev/null || true; } | awk '$$2 == "installed" { print $$1 }' \
	  | sort | comm -13 - <(printf '%s\n' $(PACKAGES) | sort)); \
	if [ -n "$$missing" ]; then \
	  echo "installing Debian packages: $$missing" | tr '\n' ' '; echo; \
	  apt-get update -qq; \
	  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing > /dev/null; \
	fi
endif

check: lint unit ## formatting, lint, types, layers, and the tests without virtual machines

lint: venv ## formatting, lint, types, layers
	$(BIN)/ruff format --check pbserv tests
	$(BIN)/ruff check pbserv tests
	$(BIN)/mypy
	$(BIN)/lint-imports

demo: venv packages ## a small room of virtual machines: one is captured, another restored, live in the terminal (root)
ifeq ($(ROOT),yes)
	@exec $(BIN)/python -m tests.support.demo
else
	@echo "make demo needs root: it makes network namespaces. Run: sudo make demo"; exit 1
endif

bench: venv bench-packages ## all measurements, an hour and a half (root); JSON in bench/results; BENCH="--quick" for a look
	$(BIN)/python -m bench $(BENCH)

clean: ## remove the environment and caches
	rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
