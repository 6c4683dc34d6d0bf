# make test: lint, types, tests.  make demo: fine-tune a prior and measure it (ARGS="--env ID").
# Both set up all they need in .venv; a second call starts at once.

BIN := .venv/bin
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --maxprocesses 8 --dist worksteal

.PHONY: test test-portable test-oldest fuzz faults soak demo docs notebooks lint format wheel-test clean

test: lint
	$(PYTEST) --cov

# Once more as on older processors, which add numbers in other orders and so round otherwise.
test-portable: test
	ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 $(PYTEST)
	ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 $(PYTEST)

# Once more with the oldest releases that pyproject.toml admits, in an environment of their own.
test-oldest: .venv-oldest/installed
	$(subst $(BIN),.venv-oldest/bin,$(PYTEST))

# Bundles that were altered in 10,000 ways: each loads, or is refused in a sentence.
fuzz: .venv/installed
	MUTANTS=10000 $(PYTEST) --timeout 36000 tests/ral_env/bundle/test_untrusted.py

# Kills at each stage and algorithm, signals, full disks, two writers: runs go on exactly.
faults: .venv/installed
	$(PYTEST) --timeout 3600 -m faults

# Episodes, as many as SOAK seconds take: nothing grows, nothing is not finite.
SOAK := 3600
soak: .venv/installed
	SOAK=$(SOAK) $(PYTEST) -n 0 --timeout 0 -m soak

demo: .venv/installed
	$(BIN)/ral demo $(ARGS)

# The site, into docs/_build/html; a warning is an error.
docs: .venv/docs
	$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html

# The course's notebooks, run and written with their outputs; FAST=1 makes short work of each, and
# leaves those that the site shows.
notebooks: .venv/docs
	OMP_NUM_THREADS=1 FAST=$(FAST) $(BIN)/python docs/course/build.py $(NOTEBOOKS)

lint: .venv/installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright

format: .venv/installed
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# Installing also compiles the sampler, where there is a compiler: so anew when its source changes.
NATIVE := hatch_build.py ral_env/nets/native/build.py $(wildcard ral_env/nets/native/*.[ch])

# Debian's Python may lack ensurepip: there its own pip fills the environment.
.venv/installed: pyproject.toml constraints.txt $(NATIVE)
	@test -x $(BIN)/pip && exit; \
	for python in $(PYTHON) python3.11 python3.12 python3.13 python3; do \
	  if $$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>&-; then \
	    $$python -m venv .venv >/dev/null 2>&1 && exit; \
	    $$python -m venv --clear --without-pip .venv && \
	    exec $$python -m pip --python $(BIN)/python install --quiet pip; \
	  fi; \
	done; \
	echo 'Python 3.11, 3.12 or 3.13 is needed: install one, or name it: make PYTHON=/path/to/python' >&2; \
	exit 1
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[pretrain,dev]'
	touch $@

.venv-oldest/installed: .venv/installed pyproject.toml constraints-oldest.txt
	$(BIN)/python -m venv --clear --without-pip .venv-oldest
	$(BIN)/python -m pip --python .venv-oldest/bin/python install --quiet --disable-pip-version-check \
	  -c constraints-oldest.txt -e '.[pretrain,dev]'
	touch $@

# What the site and the notebooks are made with.
.venv/docs: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	touch $@

# Built, installed in clean environments of all Pythons that are here, and used outside the checkout.
wheel-test: .venv/installed
	sh tests/wheel-test.sh $(PYTHONS)

clean:
	rm -rf .venv .venv-oldest dist .pytest_cache .ruff_cache .hypothesis ral_env/nets/native/*.so
	find . -name __pycache__ -type d -prune -exec rm -r {} +
