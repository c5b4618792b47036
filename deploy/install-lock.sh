#!/bin/sh
# install-lock.sh VENV LOCK: what the lock names goes into the virtual environment, and nothing else.
#
# The one way to install from a lock here, because it resolves nothing, however old the lock is and whatever was
# released since: a lock is complete and has a hash for each file. A pip that resolves (23.0, Debian 12's) takes
# `coverage[toml]`, which a locked package asks for, for a requirement of its own, looks for its newest release,
# and refuses it. What a lock would lack is found by `pip check`.
set -eu
[ $# -eq 2 ] || { echo "usage: $0 VENV LOCK" >&2; exit 2; }
pip() { "$venv/bin/python" -m pip --disable-pip-version-check --no-input "$@"; }
venv=$1
pip install -qq --require-hashes --no-deps --only-binary :all: -r "$2"
report=$(pip check) || { echo "$2 is not complete: $report" >&2; exit 1; }
