# Two commands for everybody: `make demo` and `make test`. They make their own environment in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
JOBS ?= 2

# tests start Python some two hundred times: what it has compiled is kept, also where the user's shell says otherwise
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help demo test fuzz lint lists docs format test-newest test-triton screenshots check-screenshots benchmark main-job tables peers clean

help: ## list the commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

demo: $(READY) ## run the main job on the sample pair and say what was found (about a minute)
	$(BIN)/changemap demo --out demo-output
	@echo "Look at it in a browser: $(BIN)/changemap view --demo"

test: $(READY) ## run all tests
	$(BIN)/python -m pytest -n $(JOBS)

FUZZ ?= 2000
fuzz: $(READY) ## damage FUZZ files of every kind in ways that were not tried yet (an hour)
	CHANGEMAP_FUZZ_EXAMPLES=$(FUZZ) $(BIN)/python -m pytest -n $(JOBS) Testing/fuzz

NEWEST := .venv-newest
SLICER_NEWEST := slicer-core==5.13.31053.0
PURELIB := -c 'import sysconfig; print(sysconfig.get_path("purelib"))'
test-newest: $(READY) ## run the tests of scene and module on the newest slicer-core, in an environment over the other
	test -x $(NEWEST)/bin/python || $(BIN)/python -m venv $(NEWEST)
	echo "import site; site.addsitedir('$$($(BIN)/python $(PURELIB))')" > "$$($(NEWEST)/bin/python $(PURELIB))/rest.pth"
	$(NEWEST)/bin/python -m pip install --quiet --disable-pip-version-check $(SLICER_NEWEST)
	# test_process looks at processes, which are no part of slicer-core
	$(NEWEST)/bin/python -m pytest -n $(JOBS) --ignore Testing/module/test_process.py Testing/scene Testing/module

TRITON := .venv-triton
TRITON_VERSION := 3.9.0
test-triton: $(READY) ## run the kernels for a GPU in Triton's interpreter, on the CPU
	# beside the environment, not in it: its LLVM and that of VTK crash one another in one process
	test -d $(TRITON)/triton || $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target $(TRITON) triton==$(TRITON_VERSION)
	PYTHONPATH=$(TRITON) $(BIN)/python -m pytest Testing/library/test_fused.py

screenshots: $(READY) ## make the pictures of module and viewer in README and docs from the sample pair
	$(BIN)/python Testing/module/make_screenshots.py Resources/Screenshots
	test -f demo-output/run.json || $(BIN)/changemap demo --out demo-output
	$(BIN)/python Testing/web/make_screenshots.py demo-output Resources/Screenshots

check-screenshots: $(READY) ## make these pictures anew and compare them with those in the repository
	$(BIN)/python Testing/module/make_screenshots.py Resources/Screenshots --compare

lint: $(READY) ## style, types, spelling, import order of the packages
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell
	$(BIN)/python Testing/cmake/update_lists.py --check

lists: $(READY) ## bring the lists of files in the extension's CMakeLists.txt up to date
	$(BIN)/python Testing/cmake/update_lists.py

DOCS := $(VENV)/.docs
docs: $(DOCS) ## build the documentation, strictly, into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

format: $(READY) ## let ruff rewrite what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

benchmark: $(READY) ## run all methods on synthetic pairs, score them, and bring the result tables up to date
	$(BIN)/python Testing/benchmarks/evaluation.py $(DATA)
	$(BIN)/python Testing/benchmarks/result_tables.py

main-job: $(READY) ## measure the main job on DATA (folder of CTs and pairs) against its bars
	$(BIN)/python Testing/benchmarks/main_job.py $(DATA)
	$(BIN)/python Testing/benchmarks/result_tables.py

tables: $(READY) ## make the result tables of README and docs from Testing/benchmarks/results/
	$(BIN)/python Testing/benchmarks/result_tables.py

PEERS := .venv-peers
peers: $(READY) ## measure the registration beside its peers on DATA (an hour)
	test -x $(PEERS)/bin/python || $(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check -r Testing/benchmarks/registration_peers.txt
	$(BIN)/python Testing/benchmarks/registration.py $(DATA) --peers $(PEERS)/bin/python

clean: ## remove the environment and caches
	rm -rf $(VENV) $(NEWEST) $(TRITON) $(PEERS) demo-output site .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# torch goes first: what depends on it then takes the build that is there
$(READY): requirements-dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.10 or newer is needed, this is " + sys.version.split()[0] + "; try make PYTHON=python3.12") if sys.version_info < (3, 10) else 0'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $(READY)

$(DOCS): $(READY) requirements-docs.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-docs.txt
	touch $(DOCS)
