.PHONY: demo test faults check bench install
.DEFAULT_GOAL := help

PYTHON ?= python3
# uv from the PATH, or one in a virtual environment of its own
UV := $(shell command -v uv || echo .uv/bin/uv)
RUN := $(UV) run --frozen --all-extras
DEMO := out/demo-$(shell date +%Y%m%d-%H%M%S)

help:
	@echo "make demo | test | faults | check | bench"

.uv/bin/uv:
	$(PYTHON) -m venv .uv
	.uv/bin/python -m pip install --quiet uv

install: $(filter .uv/%,$(UV))
	$(UV) sync --frozen --all-extras --quiet

demo: install
	$(RUN) medphantom generate "frontal chest x-ray of a young child with pneumonia" -n 4 --seed 1 --out $(DEMO)

test: install
	$(RUN) pytest -n 2 --dist loadfile
	$(RUN) pytest -m ray

faults: install
	$(RUN) pytest -m faults -s

check: install
	$(RUN) ruff format --check .
	$(RUN) ruff check .
	$(RUN) mypy
	$(RUN) lint-imports

bench: install
	$(RUN) medphantom bench engine --json
	$(RUN) medphantom bench serve --json
	$(RUN) medphantom bench jobs --json
