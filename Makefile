# The two commands of a newcomer are "make run" and "make test".
.DEFAULT_GOAL := help
.PHONY: help setup run call hangup check quick test test-machines bench soak load screens clean
# Beside each other on two cores: tests that wait for other programs, and tests that work all the time.
WAITING := -n 4 --dist loadfile --no-loadscope-reorder
WORKING := -n 2 --dist loadfile --no-loadscope-reorder

help:  ## what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 22

setup:  ## set everything up that "make run" needs
	@sh tools/setup

run: setup  ## run everything on this machine, until Ctrl-C
	@exec .venv/bin/idbellen demo

call:  ## make call CODE=...: let the demo phone of a running demo call with a code
	@test -n "$(CODE)" || { echo "type: make call CODE=... with the code on the citizen's page"; exit 2; }
	@.venv/bin/idbellen demo --call "$(CODE)"

hangup:  ## let the demo phone of a running demo hang up
	@.venv/bin/idbellen demo --hangup

check:  ## look at the code without running it: style, types, floors, and what the documents name
	@sh tools/setup test
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --quiet --diff .
	@.venv/bin/mypy
	@.venv/bin/lint-imports --no-cache
	@tools/references

quick: check  ## check, and run the tests that need no other program
	@PYTHONDONTWRITEBYTECODE= .venv/bin/python -m pytest $(WORKING) tests/unit

test: check  ## set everything up and run all checks and tests
	@PYTHONDONTWRITEBYTECODE= .venv/bin/python -m pytest $(WAITING) --cov --cov-report=term

test-machines:  ## as root: type both commands on fresh machines (or on WAYS), and write docs/machines.md
	@python3 tools/machines $(WAYS)

bench:  ## measure, and write docs/benchmarks.md
	@sh tools/setup test
	@.venv/bin/python -m tests.measure.bench

soak:  ## bring faults about for an hour, or MINUTES=..., and write docs/soak.md
	@sh tools/setup test
	@.venv/bin/python -m tests.measure.soak --minutes $(or $(MINUTES),60)

load:  ## let many call while the service is killed and Redis crashes, and write docs/benchmarks.md
	@sh tools/setup test
	@.venv/bin/python -m tests.measure.load --redis

screens:  ## make the pictures in docs/
	@sh tools/setup test
	@.venv/bin/python -m tests.measure.screens

clean:  ## remove all that was set up here
	rm -rf .run .venv *.egg-info .hypothesis
