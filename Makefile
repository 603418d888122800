# Everything is set up here: `make demo` and `make test` are all that a fresh machine needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
APT ?= mosquitto mosquitto-clients prometheus prometheus-alertmanager libportaudio2 pulseaudio pulseaudio-utils libasound2-plugins

.PHONY: help setup demo test test-system test-soak test-package test-vm lint bench clean deb demo-detectors apt
help:
	@echo "make demo            hear a simulated slide rail break and be repaired (no torch needed)"
	@echo "make setup           $(BIN)/edge-asd and $(BIN)/edge-asd-train, with torch"
	@echo "make test            lint, types, import rules and the tests (at most 10 minutes)"
	@echo "make test-system     what needs a broker, Prometheus or long runs"
	@echo "make test-soak       1,000 kills of daemon and broker while 100,000 alerts flow (about an hour)"
	@echo "make test-package    the Debian package in a container with systemd (root; about 3 minutes)"
	@echo "make test-vm         unplug ALSA sound cards, in a virtual machine (root; about 4 minutes)"
	@echo "make lint            ruff, mypy, import rules"
	@echo "make bench           measure speed, memory, and quality for time"
	@echo "make demo-detectors  train the two detectors of the demo anew"
	@echo "make deb             the Debian package for a factory PC, see systemd/README.md"
	@echo "make clean           remove what was built"

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit("edge-asd needs Python 3.11 or later" if sys.version_info < (3, 11) else 0)'
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || $(MAKE) --no-print-directory apt APT=python3-venv
	$(PYTHON) -m venv $(VENV)

# What is installed is remembered in the environment, and installed again when the project's needs change.
$(VENV)/.daemon: pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(VENV)/.train: pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[train]'
	touch $@ $(VENV)/.daemon

$(VENV)/.test: pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[train,test]'
	touch $@ $(VENV)/.train $(VENV)/.daemon

setup: $(VENV)/.train

demo: $(VENV)/.daemon
	$(BIN)/edge-asd demo

# Two workers, each file in one of them, with one thread each: torch's own threads would only get into each other's way.
test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not system and not package" -n 2 --dist loadfile

# EDGE_ASD_MUTATED_DETECTORS: how many detector files gone wrong are tried (1,000 unless given).
test-system: $(VENV)/.test apt
	$(BIN)/python -m pytest -m system

# 1,000 kills while 100,000 alerts flow, and a database cut short at every byte.
test-soak: $(VENV)/.test apt
	EDGE_ASD_SOAK_KILLS=1000 EDGE_ASD_SOAK_ALERTS=100000 EDGE_ASD_EVERY_BYTE=1 \
	  $(BIN)/python -m pytest tests/system/test_delivery.py tests/publish

# Its root system is made at the first run, in build/package.
test-package: $(VENV)/.test
	@$(MAKE) --no-print-directory apt APT="mmdebstrap systemd-container"
	@$(MAKE) --no-print-directory deb
	$(BIN)/python -m pytest -m package tests/system/test_package.py

# Software emulation: runs wherever qemu does. Its root system is made at the first run.
test-vm: | $(BIN)/python
	@$(MAKE) --no-print-directory apt APT="qemu-system-x86 mmdebstrap cpio kmod"
	mkdir -p build/vm
	PYTHON=$(BIN)/python tests/vm/run.sh build/vm 420 python3 -m pytest -p no:cacheprovider --confcutdir=tests/vm \
	  --verbosity=1 --capture=no --color=no --tb=short --durations=0 --durations-min=1 tests/vm

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy edge_asd
	$(BIN)/lint-imports

bench: $(VENV)/.test
	PYTHONPATH=tests $(BIN)/python -m bench

demo-detectors: $(VENV)/.train
	rm -rf build/demo && mkdir -p build/demo
	$(BIN)/edge-asd-train simulate --out build/demo --id id_00 --train-clips 160 --seed 1000
	$(BIN)/edge-asd-train cae --data build/demo --machine slider --out edge_asd/demo/slide-rail.cae.onnx
	$(BIN)/edge-asd-train anogan --data build/demo --machine slider --out edge_asd/demo/slide-rail.anogan.onnx

deb: | $(BIN)/python
	systemd/build-deb.sh $(BIN)/python build/deb build

# Debian packages that are needed, those of the system tests unless told; installed where root or sudo allows, else named.
apt:
	@missing=$$(for p in $(APT); do dpkg -s $$p >/dev/null 2>&1 || printf '%s ' $$p; done); \
	[ -z "$$missing" ] && exit 0; \
	sudo=$$([ "$$(id -u)" = 0 ] || echo "sudo -n"); \
	if $$sudo true 2>/dev/null; then \
	  echo "installing $$missing"; \
	  $$sudo apt-get -qq update && $$sudo env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y \
	    --no-install-recommends $$missing >/dev/null; \
	else echo "please install: sudo apt-get install $$missing"; exit 1; fi

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
