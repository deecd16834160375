# make demo | make test | make test-fast | make docs | make bench: each installs what it needs into .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed

# pip compiles the whole library of packages on one core. Instead each module is compiled, once, when it is first imported.
unexport PYTHONDONTWRITEBYTECODE
PIP := $(BIN)/pip --quiet --disable-pip-version-check install --no-compile
UV := $(BIN)/uv pip install --quiet --link-mode copy --python $(BIN)/python  # several packages at once; pip takes over where it cannot reach the index
LINT := $(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports

.PHONY: setup demo test test-fast lint browser bench docs
setup: $(STAMP)

$(STAMP): pyproject.toml
	@echo "Installing into $(VENV); the first time takes a few minutes."
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Ropeway needs Python 3.11 or newer: make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch==2.13.0 uv==0.13.9  # by pip, which knows the user's own index of PyTorch's CPU build
	$(UV) --editable '.[dev]' || $(PIP) --editable '.[dev]'
	@# before several processes compile them
	$(BIN)/python -c 'import prefect.server.api.server' & server=$$!; \
	  $(BIN)/python -c 'import flows.prefect_stages, ray.data, ray.train.torch' && wait $$server
	touch $(STAMP)

demo: $(STAMP)
	$(BIN)/ropeway demo

lint: $(STAMP)
	$(LINT)

browser:  # for the tests of Prefect's run form
	@command -v chromium || command -v chromium-browser || command -v google-chrome || \
	  (apt-get update -q && apt-get install -y -q --no-install-recommends chromium) || \
	  (echo "The tests need Chromium, and it could not be installed: install your system's chromium package." && exit 1)

test:  # lint runs beside the tests, and is printed after them
	@$(MAKE) --no-print-directory -j 2 $(STAMP) browser
	@($(LINT)) > $(VENV)/lint.txt 2>&1 & lint=$$!; \
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder; tests=$$?; \
	wait $$lint; linted=$$?; cat $(VENV)/lint.txt; exit $$((tests | linted))

test-fast: $(STAMP)  # no browser, cluster or server, nothing slow; without lint
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-servers

bench: $(STAMP)
	$(PIP) --editable '.[bench]'
	$(PIP) --no-deps litdata==0.2.76 lightning-utilities obstore tifffile  # without torchvision
	for name in attention chunking packing reading deduplication prepare training memory evaluation orchestration; do $(BIN)/python -m benchmarks.$$name || exit 1; done

docs: $(STAMP)  # warnings, such as a dead link, fail it
	$(BIN)/python -m sphinx -c docs -W --keep-going -q -j auto -d site/.doctrees . site
	@echo "The site is in site/index.html"
