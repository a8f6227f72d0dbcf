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

figures:  # the README's figures
	python run_ladder.py report --base resnet50 --published --out docs/published
