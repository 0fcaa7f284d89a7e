#!/usr/bin/env bash
# Sets up if needed and runs all tests, two at a time:
#   ./run_tests.sh [--no-setup] [PYTEST_ARGUMENT...]
# --no-setup is that of run_all.sh.
[[ $- == *p* ]] || exec "$BASH" -p "$0" "$@" # no function of the user's shell; experiment.sh
source "$(dirname "$(realpath "${BASH_SOURCE[0]}")")/common/launching/experiment.sh"

setup=yes
if [[ ${1:-} == --no-setup ]]; then
  setup=no
  shift
fi
prepare_python "$setup"
exec "$PYTHON" -m pytest -n 2 "$@"
