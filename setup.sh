#!/usr/bin/env bash
# Makes .venv in this checkout, holding exactly the packages of requirements.lock. Needs Python 3.11
# or 3.12 and nothing else. Instant when nothing changed; an interrupted or outdated set-up is made
# anew, so .venv is no place for packages of your own.
[[ $- == *p* ]] || exec "$BASH" -p "$0" "$@" # no variable changes what it does; experiment.sh
set +o posix -euo pipefail
unset BASH_ENV PYTHONHOME PYTHONSAFEPATH PIP_USER PIP_TARGET PIP_PREFIX
{ [[ ! /dev/fd/1 -ef $0 ]] && : 3>&1; } 2>/dev/null || exec >/dev/null
{ [[ ! /dev/fd/2 -ef $0 ]] && : 3>&2; } || exec 2>/dev/null
cd "$(dirname "$(realpath "${BASH_SOURCE[0]}")")"

readonly mark=.venv/.made-by-setup  # the folder is ours, so we may rebuild it
readonly stamp=.venv/.installed     # the locks it holds; written last

fail() {
  echo "error: $*" >&2
  exit 2
}

locks() { cat requirements-uv.lock requirements.lock | sha256sum | cut -d ' ' -f 1; }

is_current() { [[ -x .venv/bin/python && -r $stamp && $(<"$stamp") == "$(locks)" ]]; }

find_python() {
  local candidate
  local supported='import sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))'
  for candidate in python3.11 python3.12 python3 python; do
    if "$candidate" -c "$supported" 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  fail "no Python 3.11 or 3.12 was found on the PATH; install one (Debian, Ubuntu:" \
    "apt install python3.11 python3.11-venv) and start the same command again."
}

# An interrupted call leaves the mark without the stamp; the next call then starts from nothing.
make_empty_venv() {
  if [[ ! -e $mark && -n $(ls -A .venv/ 2>/dev/null) ]]; then
    fail "the folder .venv was not made by setup.sh; move it away and start the same command again."
  fi
  if [[ -L .venv ]]; then # to where there is room: the link stays
    mkdir -p "$(realpath -m .venv)"
    find .venv/ -mindepth 1 -delete
  else
    rm -rf .venv
    mkdir .venv
  fi
  touch "$mark"
}

# Debian's Python may come without ensurepip; the system's pip then serves.
install_uv() {
  local python=$1
  local pip=(.venv/bin/python -m pip)
  if "$python" -c 'import ensurepip' 2>/dev/null; then
    "$python" -m venv .venv
  elif "$python" -m pip --version >/dev/null 2>&1; then
    "$python" -m venv --without-pip .venv
    pip=("$python" -m pip --python .venv/bin/python)
  else
    fail "$python has neither ensurepip nor pip; install python3-venv or pip and start the same" \
      "command again."
  fi
  "${pip[@]}" install --quiet --disable-pip-version-check --require-hashes -r requirements-uv.lock
}

install_packages() {
  local quiet=()
  [[ -t 2 ]] || quiet=(--quiet)
  # --compile-bytecode: where PYTHONDONTWRITEBYTECODE is set, every later start would compile torch
  # and the rest again, which takes seconds.
  .venv/bin/uv pip install "${quiet[@]}" --compile-bytecode --python .venv/bin/python \
    --require-hashes -r requirements.lock
}

is_current && exit 0

# lock takes the lock, once another set-up that has it has ended. Without the command flock, or on a
# file system without locks, it says so and goes on.
lock() {
  local code=0 reason
  exec 9>.setup.lock
  reason=$(flock --nonblock 9 2>&1) || code=$?
  if [[ $code -eq 1 ]]; then
    echo "Another set-up is at work in this folder; waiting for it."
    flock 9
  elif [[ $code -ne 0 ]]; then
    echo "no lock can be had here (flock: ${reason##*: }); start no other set-up meanwhile." >&2
  fi
}

lock
is_current && exit 0

python=$(find_python)
echo "Setting up .venv (once; about 6 GB, under a minute on free cores from a warm cache) ..."
make_empty_venv
installed=$(locks)
if ! { install_uv "$python" && install_packages; }; then
  fail "the packages of requirements.lock could not be installed (see above); check the network" \
    "and the free space, then start the same command again."
fi
echo "$installed" >"$stamp.new"
mv "$stamp.new" "$stamp"
