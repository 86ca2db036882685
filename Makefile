# `make demo` and `make test` do all the set-up; nothing else needs typing.
PYTHON ?= python3
BIN := .venv/bin
DIR ?=
export PIP_DISABLE_PIP_VERSION_CHECK=1

.PHONY: setup packages packages-test demo test check fmt lint type arch acceptance models ablation bench clean

setup: .venv/.ready
.venv/.ready: pyproject.toml constraints.txt docker/install.sh
	docker/install.sh packages
	docker/install.sh python $(PYTHON)
	touch $@

packages-test:
	docker/install.sh packages-test

demo: setup
	$(BIN)/falx demo $(DIR)

test: setup packages-test
	$(BIN)/pytest -m "not slow"

acceptance: setup packages-test
	$(BIN)/pytest -m slow

check: fmt lint type arch
fmt:
	$(BIN)/ruff format --check .
lint:
	$(BIN)/ruff check .
type:
	$(BIN)/mypy
arch:
	$(BIN)/lint-imports

# one thread a process, and freed memory kept for the next head: a head is drawn in four fifths of the time
models ablation: export OPENBLAS_NUM_THREADS = 1
models ablation: export MALLOC_MMAP_THRESHOLD_ = 1073741824
models ablation: export MALLOC_TRIM_THRESHOLD_ = 8589934592
models: setup
	$(BIN)/python -m inference.training.make_models

ablation: setup
	$(BIN)/python benchmarks/ablation_ct.py

bench: setup
	for script in warm_models read_series receive time_to_report web_pages label_reports relabel_archive; do \
	  $(BIN)/python -P benchmarks/$$script.py || exit 1; done

clean:
	rm -rf .venv build artefacts cache demo-data
