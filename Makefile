# Names only; the work is done by setup.py, scripts/ and the package itself.
#
#   make          build into .venv of this checkout
#   make demo     build, then run the main job and show what it does
#   make test     build, then run the tests (make test-heavy: those that need gigabytes)

PYTHON ?= python3
VENV   := .venv
PY     := $(VENV)/bin/python
CYLLAMA_BACKENDS ?= rpc
export CYLLAMA_BACKENDS

.DEFAULT_GOAL := build
.PHONY: all build demo test test-heavy lint stubs screenshots bench wheel tools models update clean distclean

all: build tools

$(VENV)/.ready: pyproject.toml scripts/setup_venv.sh
	@sh scripts/setup_venv.sh "$(PYTHON)" "$(VENV)"

build: $(VENV)/.ready
	@$(PY) setup.py --quiet build_ext --inplace
	@sh scripts/install_editable.sh "$(PY)"

demo: build
	@$(PY) scripts/demo.py

test: build tools
	@$(PY) -m pytest

test-heavy: build tools
	@$(PY) -m pytest -m heavy

tools: $(VENV)/.ready
	@CYLLAMA_TOOLS=1 $(PY) setup.py --quiet build_ext --inplace
	@sh scripts/install_editable.sh "$(PY)"
	@sh scripts/link_tools.sh

lint: build
	@sh scripts/lint.sh "$(VENV)/bin"

stubs: build
	@$(PY) scripts/gen_stubs.py

screenshots: build
	@$(PY) -m pytest tests/server/test_page.py -k screenshots --screenshots docs/howto

bench: build tools
	@$(PY) -m benchmarks

wheel: $(VENV)/.ready
	@$(PY) scripts/build_wheel.py

models: build
	@$(PY) -m cyllama models get --all

# The variables of `make update`; those of the environment do not count.
UPDATE := VERSION:version PACKAGE:package ORIGIN:origin GIT:git REF:ref SUBMODULES:submodules ARCHIVE:archive \
          TREE:tree UPSTREAM_VERSION:upstream-version COMMIT:commit
given   = $(if $(filter command,$(origin $(1))),--$(2)='$($(1))')
options = $(foreach pair,$(UPDATE),$(call given,$(word 1,$(subst :, ,$(pair))),$(word 2,$(subst :, ,$(pair)))))

update: $(VENV)/.ready
	@$(PY) scripts/engines --update '$(ENGINE)' $(options)

clean:
	@rm -rf build/cython build/lib* build/temp* build/bdist* dist bin src/*.egg-info
	@find src -name '*.so' -delete
	@rm -f src/cyllama/lib/*

distclean: clean
	@rm -rf build $(VENV) thirdparty/llama.cpp thirdparty/whisper.cpp thirdparty/stable-diffusion.cpp
