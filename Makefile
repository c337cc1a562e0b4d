# make demo     the pipeline on the data that comes with it; prints where the results are
# make demo-movies  the same on movies that it simulates on the spot, with the motion found against the true one
# make demo-tomo   the same on a simulated tilt series, as far as a segmented tomogram and RELION 5's files
# make test     every test
# make lint     style, types and the workflow's own rules
# make bench    seconds and memory per micrograph
# make drills   the faults of a cluster, on a toy SLURM (root, slurm-wlm and munge)
# The first of them makes .venv; PYTHON=/path/to/python3.11 chooses the interpreter.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := $(CURDIR)/.venv/bin
export PATH := $(BIN):$(PATH)

.PHONY: demo demo-movies demo-tomo test lint bench drills

demo: .venv/installed
	emflow demo

demo-movies: .venv/installed
	emflow demo --movies

demo-tomo: .venv/installed
	emflow demo --tomo

test: .venv/installed
	pytest

lint: .venv/installed
	ruff check .
	ruff format --check .
	mypy
	snakefmt --check Snakefile workflow
	rm -rf build/lint
	emflow simulate --output build/lint --micrographs 1 --shape 256 256 --pixel-size 4
	emflow init build/lint/session --micrographs build/lint/micrographs.star --diameter 150
	snakemake --lint --directory build/lint/session

bench: .venv/installed
	python benchmarks/spa_throughput.py
	python benchmarks/scale.py

drills: .venv/installed
	pytest -m drills -rA tests/workflow/test_drills.py

# Made again when what it should hold has changed.
.venv/installed: pyproject.toml envs/constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --constraint envs/constraints.txt --editable '.[train,dev]'
	touch $@
