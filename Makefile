# setup makes .venv and gets Kafka; every other target starts with it and takes seconds for it the second time.
.PHONY: setup demo demo-loop stack test chaos soak fuzz bench lint
.DEFAULT_GOAL := setup

setup:
	@sh scripts/setup.sh

# SECURE=1: on a broker with TLS, SCRAM and ACLs, each service with its own principal.
demo: setup
	@.venv/bin/python -m tidegate.demo $(if $(SECURE),--secure)

# Verdicts, labels, a retrained release, its gate and what it changes.
demo-loop: setup
	@.venv/bin/python -m tidegate.loop

# What docker-compose.yml runs, as processes, with LiteLLM's proxy and Prometheus.
stack: setup
	@.venv/bin/python -m tidegate.stack

# Most tests wait for a broker most of the time: two at once, a file's on one of them.
test: setup
	@mkdir -p out/test
	@.venv/bin/python -m pytest -n 2 --dist loadfile --cov --cov-report=term --cov-report=xml:out/test/coverage.xml --summary=out/test/summary.json --durations=40 --durations-min=10

# CHAOS_SEED, CHAOS_KILLS, CHAOS_EVENTS and CHAOS_PROTOCOL (classic, consumer, both) set its size.
chaos: setup
	@.venv/bin/python -m tests.drills.chaos

# SOAK_MINUTES sets its length.
soak: setup
	@.venv/bin/python -m tests.drills.soak

# FUZZ_INPUTS and FUZZ_SEED set its size and its draw.
fuzz: setup
	@.venv/bin/python -m tests.fuzz --inputs $(or $(FUZZ_INPUTS),1000000) --seed $(or $(FUZZ_SEED),7)

bench: setup
	@.venv/bin/python -m benchmarks

lint: setup
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy
	@.venv/bin/lint-imports --no-logo
