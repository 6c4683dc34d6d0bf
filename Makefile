# make test: lint, types, tests.  make demo: fine-tune a prior and measure it (ARGS="--env ID").
# Both set up all they need in .venv; a second call starts at once.

BIN := .venv/bin
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --maxprocesses 8 --dist worksteal

.PHONY: test test-portable demo lint format clean

test: lint
	$(PYTEST)

# Once more as on older processors, which add numbers in other orders and so round otherwise.
test-portable: test
	ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 $(PYTEST)
	ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 $(PYTEST)

demo: .venv/installed
	$(BIN)/ral demo $(ARGS)

lint: .venv/installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright

format: .venv/installed
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# Debian's Python may lack ensurepip: there its own pip fills the environment.
.venv/installed: pyproject.toml constraints.txt
	@test -x $(BIN)/pip && exit; \
	for python in $(PYTHON) python3.11 python3.12 python3; do \
	  if $$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' 2>&-; then \
	    $$python -m venv .venv >/dev/null 2>&1 && exit; \
	    $$python -m venv --clear --without-pip .venv && \
	    exec $$python -m pip --python $(BIN)/python install --quiet pip; \
	  fi; \
	done; \
	echo 'Python 3.11 or 3.12 is needed: install one, or name it: make PYTHON=/path/to/python' >&2; \
	exit 1
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[pretrain,dev]'
	touch $@

clean:
	rm -rf .venv dist .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -r {} +
