#!/usr/bin/env bash
# Sets up if needed and runs all tests, two at a time; further arguments go to pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
bash setup.sh
# Two test processes with one quiet thread each: threads of their own would only slow each other.
export GOMP_SPINCOUNT=${GOMP_SPINCOUNT:-0}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
exec .venv/bin/python -m pytest -n 2 "$@"
