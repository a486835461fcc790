# Two commands do everything on a fresh machine: `make demo` and `make test`. Both set up .venv themselves.
PYTHON ?= python3.11
BIN := .venv/bin
# Two workers, one torch thread each: more threads than cores make everything slower.
export OMP_NUM_THREADS := 1

.PHONY: demo test setup check clean

demo: setup
	$(BIN)/synthgrad demo

test: setup check
	$(BIN)/pytest -n 2

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

setup: .venv/.installed

# torch first and by its exact version: a range would fetch the newest build with several GB of CUDA.
.venv/.installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[lab,test]'
	touch $@

clean:
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis
