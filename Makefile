# Names only; the work is done by setup.py, scripts/ and the package itself.
#
#   make          build into .venv of this checkout, for this machine
#   make demo     build, then run the demo
#   make test     build, then run the tests (make test-heavy: those that need gigabytes)
#   make fuzz     build, then run each fuzz target for SECONDS seconds
#   make test-sanitize   build with the sanitizers of KIND (address,undefined or thread), then run tests on that build
#
# CYLLAMA_CPU_VARIANTS=all builds the CPU variants of all processors instead of the one of this machine.

PYTHON ?= python3
VENV   := .venv
PY     := $(VENV)/bin/python
CYLLAMA_BACKENDS ?= rpc
export CYLLAMA_BACKENDS
SECONDS ?= 60
KIND ?= address,undefined

.DEFAULT_GOAL := build
.PHONY: all build note demo test test-packages test-heavy lint stubs screenshots docs bench wheel tools models update
.PHONY: fuzz sanitize test-sanitize fuzz-sanitize clean distclean

all: build tools

# One stamp for each dependency group of pyproject.toml: a build installs nothing that only tests need.
$(VENV)/.group-%: pyproject.toml scripts/setup_venv.sh
	@sh scripts/setup_venv.sh "$(PYTHON)" "$(VENV)" $*

build: $(VENV)/.group-build
	@$(PY) setup.py --quiet build_ext --inplace
	@sh scripts/install_editable.sh "$(PY)"
	@$(PY) scripts/superbuild.py

demo: build
	@$(PY) scripts/demo.py

test-packages: $(VENV)/.group-build $(VENV)/.group-test
	@sh scripts/system_packages.sh test

# Two files of tests at a time: many tests wait, or use one thread.
test: test-packages tools
	@$(PY) -m pytest --numprocesses 2 --dist loadfile

test-heavy: test-packages tools
	@$(PY) -m pytest -m heavy

# TARGETS: names of targets, all by default
fuzz: build $(VENV)/.group-fuzz
	@$(PY) fuzz/run.py $(TARGETS) --seconds $(SECONDS)

sanitize: $(VENV)/.group-build
	@CYLLAMA_SANITIZE=$(KIND) $(PY) setup.py --quiet build_ext

test-sanitize: sanitize $(VENV)/.group-test
	@$(PY) scripts/sanitizers.py $(KIND) tests

fuzz-sanitize: sanitize $(VENV)/.group-fuzz
	@$(PY) scripts/sanitizers.py $(KIND) $(PY) fuzz/run.py $(TARGETS) --seconds $(SECONDS)

tools: $(VENV)/.group-build
	@CYLLAMA_TOOLS=1 $(PY) setup.py --quiet build_ext --inplace
	@sh scripts/install_editable.sh "$(PY)"
	@sh scripts/link_tools.sh
	@$(PY) scripts/superbuild.py

lint: build $(VENV)/.group-test $(VENV)/.group-lint
	@sh scripts/lint.sh "$(VENV)/bin"

stubs: build $(VENV)/.group-lint
	@$(PY) scripts/gen_stubs.py
	@$(PY) scripts/gen_option_types.py
	@$(PY) scripts/gen_request_types.py

screenshots: build test-packages
	@$(PY) -m pytest tests/server/page/test_screenshots.py --screenshots docs/howto

docs: build $(VENV)/.group-docs
	@NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict

bench: tools $(VENV)/.group-bench
	@$(PY) -m benchmarks

wheel: $(VENV)/.group-build $(VENV)/.group-wheel
	@CYLLAMA_CPU_VARIANTS=$${CYLLAMA_CPU_VARIANTS:-all} $(PY) scripts/build_wheel.py

models: build
	@$(PY) -m cyllama models get --all

# The variables of `make update`; those of the environment do not count.
UPDATE := VERSION:version PACKAGE:package ORIGIN:origin GIT:git REF:ref SUBMODULES:submodules ARCHIVE:archive \
          TREE:tree UPSTREAM_VERSION:upstream-version COMMIT:commit
given   = $(if $(filter command,$(origin $(1))),--$(2)='$($(1))')
options = $(foreach pair,$(UPDATE),$(call given,$(word 1,$(subst :, ,$(pair))),$(word 2,$(subst :, ,$(pair)))))

update: $(VENV)/.group-build
	@$(PY) scripts/engines --update '$(ENGINE)' $(options)

clean:
	@rm -rf build/cython build/lib* build/temp* build/bdist* dist bin src/*.egg-info
	@find src -name '*.so' -delete
	@rm -f src/cyllama/lib/*

distclean: clean
	@rm -rf build $(VENV) thirdparty/llama.cpp thirdparty/whisper.cpp thirdparty/stable-diffusion.cpp
