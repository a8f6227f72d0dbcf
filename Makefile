# What CI runs is `make check`.
.PHONY: setup format lint type test check golden figures bench

setup:
	python -m pip install -e '.[dev]'

format:
	ruff check --fix .
	ruff format .

lint:
	ruff check .
	ruff format --check .

type:
	mypy

test:
	python -m pytest

check: lint type test

golden:  # after a change of networks that is meant: new golden costs
	python -m tests.golden_costs

figures:  # the published numbers, drawn
	python run_ladder.py report --published --base resnet50 --out records/resnet50-published
	python run_ladder.py report --published --base resnet200 --out records/resnet200-published

bench:  # what the commands take over many runs, and decoding
	python -m benchmarks.many_runs
	python -m benchmarks.decoding
