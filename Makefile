# Everything is installed into .venv and happens there. `make help` lists the targets.

PYTHON ?= python3
TORCH  ?= torch==2.13.0
JOBS   ?= 2
ARGS   ?=
# Which CUDA extra `make train` installs: cuda12, cuda13, or nothing. Found by asking the NVIDIA driver.
CUDA   ?= $(shell $(PY) -I cuframe/cli/_driver.py)

VENV   := .venv
PY     := $(VENV)/bin/python
PIP    := $(PY) -m pip install --quiet --disable-pip-version-check
PYTEST := OPENBLAS_NUM_THREADS=1 $(PY) -m pytest -n $(JOBS)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help train examples test test-all test-cuda lint parity kernels kernels-all sanitize test-faults gpu-check bench readme docs docs-serve clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "Variables: PYTHON=$(PYTHON)  TORCH=$(TORCH)  JOBS=$(JOBS)  ARGS='options for make train'"

COUNT_GPUS := 'from cuframe.cli._driver import find_driver; d = find_driver(); print(len(d.gpus) if d else 0)'

# One process a GPU, as many as can have equal shares of a batch.
train: $(PY) ## train a character language model: examples/char_lm.py $(ARGS)
	@cuda="$(CUDA)"; gpus=0; ranks=1; \
	$(MAKE) -s --no-print-directory "$(VENV)/installed-plot,fast$${cuda:+,$$cuda}" || exit; \
	if [ -n "$$cuda" ]; then gpus=$$($(PY) -c $(COUNT_GPUS)); fi; \
	while [ $$((2 * ranks)) -le "$$gpus" ]; do ranks=$$((2 * ranks)); done; \
	if [ $$ranks -gt 1 ]; then set -- -m cuframe run --nproc-per-node $$ranks; fi; \
	$(PY) "$$@" examples/char_lm.py $(ARGS)

examples: $(VENV)/installed-examples,fast ## run the other examples: a kernel, digits, CO2, dates; each ends with its figure
	@set -e; for script in own_kernel ctc_digits forecast_co2 dates_transformer; do \
	  echo "== examples/$$script.py"; $(PY) examples/$$script.py; done

test: $(VENV)/installed-test ## run the tests except the slow ones
	$(PYTEST) -m "not slow and not parity and not gpu and not cupy"

test-all: $(VENV)/installed-test ## run all tests but those against PyTorch
	$(PYTEST) -m "not parity and not gpu and not cupy"

lint: $(VENV)/installed-test ## ruff and mypy
	$(PY) -m ruff check .
	$(PY) -m mypy

parity: $(VENV)/installed-torch ## compare with PyTorch, which is installed for this
	$(PYTEST) -m parity

kernels: $(VENV)/installed-kernels ## compile every CUDA kernel for sm_75, 80 and 90, with no GPU
	$(PY) -m cuframe kernels build

kernels-all: $(VENV)/installed-kernels ## the same for every architecture
	$(PY) -m cuframe kernels build --arch all

test-cuda: $(VENV)/installed-test,cuda12 ## check what is asked of CuPy and NVRTC, with no GPU
	$(PYTEST) -m cupy

gpu-check: ## on a machine with a GPU: check and measure everything there, with its own Python and packages
	$(PYTHON) benchmarks/gpu_check.py $(ARGS)

KERNEL_TESTS = $(filter-out tests/test_kernel_launch.py tests/test_kernel_cache.py,$(wildcard tests/test_kernel_*.py))
SANITIZE := $(PY) -m cuframe sim run --sanitize

sanitize: $(VENV)/installed-test ## the kernels' tests under the address sanitizer, those of thread orders under the thread sanitizer
	$(SANITIZE) address $(VENV)/bin/pytest -q -p no:xdist -m "not slow" $(KERNEL_TESTS)
	$(SANITIZE) thread $(VENV)/bin/pytest -q -p no:xdist -k "order_of or any_order or orders_and or every_order" $(KERNEL_TESTS)

test-faults: $(VENV)/installed-test ## kill, stop and starve ranks of a job and time what the others learn (minutes)
	$(PY) benchmarks/faults.py

bench: $(VENV)/installed-torch ## measure beside PyTorch, which is installed for this: cuframe bench run $(ARGS)
	$(PY) -m cuframe bench run --baseline torch $(ARGS)

readme: $(VENV)/installed-test ## write README's performance tables from benchmarks/results/
	$(PY) -m cuframe bench readme --write

# The theme prints a notice about the next major version of MkDocs, which pyproject.toml keeps away.
MKDOCS := NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs

docs: $(VENV)/installed-docs ## build the documentation into site/; a broken link or an undocumented name fails
	$(MKDOCS) build --strict --quiet
	@echo "site/index.html"

docs-serve: $(VENV)/installed-docs ## the same at http://127.0.0.1:8000, with search, built again when a page changes
	$(MKDOCS) serve --strict

clean: ## remove .venv and everything that was generated
	rm -rf $(VENV) build dist site *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(PY):
	@command -v $(PYTHON) >/dev/null || { \
	  echo "make: '$(PYTHON)' not found; install Python 3.10 or newer, or name one: make PYTHON=python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	  echo "make: cuframe needs Python 3.10 or newer, $(PYTHON) is $$($(PYTHON) -V 2>&1);" \
	    "name another: make PYTHON=python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "make: $(PYTHON) cannot make virtual environments; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@echo "making $(VENV) with $$($(PYTHON) -V)"
	@$(PYTHON) -m venv --clear $(VENV) || { rm -rf $(VENV); exit 1; }

# One stamp for each set of extras, so that a driver found later brings its extra in.
$(VENV)/installed-%: pyproject.toml setup.py | $(PY)
	@echo "installing cuframe[$*] into $(VENV)"
	@$(PIP) -e ".[$*]"
	@touch $@

$(VENV)/installed-torch: $(VENV)/installed-test
	@echo "installing $(TORCH) into $(VENV)"
	@$(PIP) "$(TORCH)" expecttest
	@touch $@
