#!/bin/sh
# Makes .venv from requirements.lock, .venv-litellm (a LiteLLM proxy as a gateway runs it, for tests and `make stack`) from
# requirements-litellm.lock, and gets Kafka's jars and Debian's Prometheus. Every step is skipped when what it depends on is unchanged,
# so it can be cut short and run again at any time.
set -eu
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3.11}

say() { printf 'setup: %s\n' "$*"; }

needed=""
"$PYTHON" -c 'import ensurepip, venv' >/dev/null 2>&1 || needed="$needed $PYTHON"
java -version 2>&1 | grep -qE 'version "(1[7-9]|[2-9][0-9])' || needed="$needed java(17)"
command -v mvn >/dev/null || needed="$needed mvn"
if [ -n "$needed" ]; then
    say "not here:$needed; run 'apt-get install openjdk-17-jre-headless maven make python3.11-venv', or use docker compose." >&2
    exit 3
fi

# Two setups at once, of a test and a demo, take turns.
if command -v flock >/dev/null; then exec 9>.setup.lock && flock 9; fi

hash_of() { cat "$@" | sha256sum | cut -c1-16; }
# A step is done when its stamp holds the hash of all that it depends on.
done_before() { [ -f "$1" ] && [ "$(cat "$1")" = "$2" ]; }

lock=$(hash_of requirements.lock)
if ! done_before .venv/.synced "$lock"; then
    # uv comes through pip, at the lock's version and hashes, and installs the rest several times faster than pip.
    pinned=$(sed -n '/^uv==/,/^[^ ]/{/^uv==/p;/--hash/p}' requirements.lock)
    if ! done_before .venv-uv/.ready "$(printf '%s' "$pinned" | hash_of -)"; then
        say "getting uv with pip"
        rm -rf .venv-uv
        "$PYTHON" -m venv .venv-uv
        printf '%s\n' "$pinned" >.venv-uv/uv.txt
        .venv-uv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r .venv-uv/uv.txt
        printf '%s' "$pinned" | hash_of - >.venv-uv/.ready
    fi
    [ -x .venv/bin/python ] || .venv-uv/bin/uv venv --quiet --python "$PYTHON" --allow-existing .venv
    say "installing the packages of requirements.lock into .venv (about 6 GB with torch; a minute or two when they are cached)"
    # Compiled now, or every process that cannot write beside its packages compiles a thousand modules at its start.
    VIRTUAL_ENV="$PWD/.venv" .venv-uv/bin/uv pip sync --quiet --compile-bytecode --require-hashes requirements.lock
    rm -f .venv/.installed
    printf '%s' "$lock" >.venv/.synced
fi

project=$(hash_of pyproject.toml)
if ! done_before .venv/.installed "$project"; then
    say "installing tidegate itself, editable, from this folder alone"
    VIRTUAL_ENV="$PWD/.venv" .venv-uv/bin/uv pip install --quiet --offline --no-deps --no-build-isolation --editable .
    printf '%s' "$project" >.venv/.installed
fi

lock=$(hash_of requirements-litellm.lock pyproject.toml)
if ! done_before .venv-litellm/.synced "$lock"; then
    [ -x .venv-litellm/bin/python ] || .venv-uv/bin/uv venv --quiet --python "$PYTHON" --allow-existing .venv-litellm
    say "installing the packages of requirements-litellm.lock into .venv-litellm (600 MB; seconds when they are cached)"
    VIRTUAL_ENV="$PWD/.venv-litellm" .venv-uv/bin/uv pip sync --quiet --compile-bytecode --require-hashes requirements-litellm.lock
    VIRTUAL_ENV="$PWD/.venv-litellm" .venv-uv/bin/uv pip install --quiet --offline --no-deps --no-build-isolation --editable .
    printf '%s' "$lock" >.venv-litellm/.synced
fi

.venv/bin/python -m deploy.kafka.local fetch
.venv/bin/python -m deploy.prometheus.local fetch ||
    say "without Prometheus 'make stack' stops, and tests that need it are skipped (where CI is set they fail)" >&2
say "ready: .venv/bin/tidegate"
