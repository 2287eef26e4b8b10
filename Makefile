# Every target makes .venv on first use, from constraints.txt, and is quick on the second.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PY := $(BIN)/python
READY := $(VENV)/.ready
EXTRAS := $(VENV)/.extras
INSTALL := $(PY) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable

.PHONY: help demo test test-extras test-slow lint format bench-retrieval bench-train bench-score bench-quality bench-balance bench-models bench-sweeps bench-mmoe-paper wheel clean

help:
	@echo "make demo             train, evaluate and score the demo shop"
	@echo "make test             the tests (make test-slow: the long ones too)"
	@echo "make test-extras      those that need other libraries: oracles, ONNX, convex weightings"
	@echo "make lint             ruff, mypy --strict, import-linter"
	@echo "make format           ruff format and safe fixes"
	@echo "make bench-retrieval  point-in-time join against Feast's own store"
	@echo "make bench-train      training against torch-rechub, DeepCTR-Torch and a bare torch loop"
	@echo "make bench-score      batch scoring against torch-rechub's predict and the forward pass"
	@echo "make bench-quality    the quality tables of docs/quality.md"
	@echo "make bench-balance    weightings and aggregators, the tables of docs/balance.md"
	@echo "make bench-models     every model of the zoo, torch-rechub and trees: the tables of docs/models.md"
	@echo "make bench-sweeps     what teams ask about models: the tables and charts of docs/tuning.md"
	@echo "make bench-mmoe-paper the MMoE paper's synthetic experiment, and its chart"
	@echo "make wheel            build the wheel into dist/"

$(READY): pyproject.toml constraints.txt
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(INSTALL) '.[dev]'
	touch $(READY)

$(EXTRAS): $(READY)
	$(INSTALL) '.[dev,convex,onnx,oracle]'
	touch $(EXTRAS)

demo: $(READY)
	cd feature_repo && ../$(BIN)/feast apply
	$(BIN)/mtlrank train --tasks ctr,cvr
	$(BIN)/mtlrank score --candidates data/candidates.parquet --to scores.duckdb

# One torch thread per test process: the processes themselves use the cores.
test: $(READY)
	OMP_NUM_THREADS=1 $(PY) -m pytest -n auto -m "not slow"

# What `make test` skips for want of packages: other libraries' models as oracles, ONNX files, convex weightings. It
# leaves the packages in .venv, where `make test` finds them from then on.
test-extras: $(EXTRAS)
	OMP_NUM_THREADS=1 $(PY) -m pytest -n auto tests/nn/test_oracles.py tests/training/test_aggregation.py \
		tests/training/test_gradients.py tests/training/test_weighting_methods.py tests/workflow/test_export.py

test-slow: $(READY)
	OMP_NUM_THREADS=1 $(PY) -m pytest -n auto -o faulthandler_timeout=3600 --hypothesis-profile=searching

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench-retrieval: $(READY)
	$(PY) benchmarks/retrieval.py

bench-train: $(READY)
	$(PY) benchmarks/train.py

bench-score: $(READY)
	$(PY) benchmarks/score.py

bench-quality: $(READY)
	$(PY) benchmarks/quality.py

bench-balance: $(READY)
	$(PY) benchmarks/balance.py

bench-models: $(READY)
	$(PY) benchmarks/models.py $(BENCH)

bench-sweeps: $(READY)
	$(PY) benchmarks/sweeps.py $(BENCH)

bench-mmoe-paper: $(READY)
	$(PY) benchmarks/mmoe_paper.py

wheel: $(READY)
	$(PY) -m pip wheel --quiet --no-deps --wheel-dir dist .

clean:
	rm -rf $(VENV) dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
