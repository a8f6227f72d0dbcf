# What CI runs is `make check`.
.PHONY: setup format lint type docs test check reference golden figures bench

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

docs:  # into build/site, strictly: a broken link or reference fails it
	python docs/build.py

test:  # four files at a time, in their order: many tests wait most of their time
	python -m pytest -n 4 --dist loadfile --no-loadscope-reorder

check: lint type docs test

reference:  # after a change of commands or records: what the documentation repeats of them
	python -m docs.generate

golden:  # after a change of networks that is meant: new golden costs
	python -m tests.golden_costs

figures:  # the published numbers, drawn
	python run_ladder.py report --published --base resnet50 --out records/resnet50-published
	python run_ladder.py report --published --base resnet200 --out records/resnet200-published

bench:  # what things take, side by side with what they might
	python -m benchmarks.start_up
	python -m benchmarks.training_loop
	python -m benchmarks.step_parts
	python -m benchmarks.layer_norm
	python -m benchmarks.many_runs
	python -m benchmarks.decoding
	python -m benchmarks.ladder_wall
