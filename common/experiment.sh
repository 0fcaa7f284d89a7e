# What every experiment script shares, and run_all.sh, run_tests.sh and .ci/run with them; see
# classification/experiments/mnist_table1.sh for its use:
#
#   SEEDS=${SEEDS:-"0 1 2"}       the default seeds, before parse_arguments
#   parse_arguments "$@"
#   run MODULE ARGUMENT...        once for each run of the experiment
#   finish                        runs them, prints them or hands them to Slurm
#
# Its comment lines '# Experiment:', '# Paper:', '# Data:' and '# Cost:' say what it is; '# Smoke:' are
# its settings for a very short job; '# Check: MODULE ARGUMENT...', where data must be fetched first,
# is run before anything starts, with the folder of --data as its --folder.
#
# Every command is run from the root of the checkout, wherever the script was called.
set -euo pipefail

CALLED_FROM=$PWD
SCRIPT=$(realpath "$0")
cd "$(dirname "${BASH_SOURCE[0]}")/.."

EXPERIMENT=$(basename "$0" .sh)
MODE=launch
JOBS=
OUT=runs
EXTRA=()
DATA=
COMMANDS=()
CORES=$(env -u OMP_NUM_THREADS -u OMP_THREAD_LIMIT nproc) # nproc would count these, not the cores

# header SCRIPT NAME prints what the script's line '# NAME:' says, if it has one.
header() { sed -n "s/^# $2: *//p" "$1"; }

print_usage() {
  cat <<USAGE
Usage: $0 [OPTION...] [-- TRAINING_OPTION...]

$(sed -n 's/^# \(Experiment\|Paper\|Data\|Cost\): */  \1: /p' "$SCRIPT")

  -j N             run N at a time (default: the number of cores)
  --seeds "0 1"    the seeds (default: "$SEEDS")
  --out FOLDER     where the runs go (default: runs)
  --dry-run        print the commands, run nothing
  --slurm          submit the runs as one Slurm job array (partition, time and so on: SBATCH_*)
  -h, --help       this text
  -- OPTION...     further options for each training command, such as -- --epochs 2, or
                   -- --data FOLDER for data that is not in its usual place

Finished runs are skipped; an interrupted one continues from its last checkpoint.
USAGE
}

fail() {
  echo "error: $*" >&2
  exit 2
}

# nearest WORD CHOICE... prints a half-sentence that names the closest choice, if one is close.
nearest() {
  local python
  python=$(command -v python3.11 python3.12 python3 python | head -n 1)
  "$python" - "$@" 2>/dev/null <<'PYTHON' || true
import difflib, sys
found = difflib.get_close_matches(sys.argv[1], sys.argv[2:], n=1, cutoff=0.5)
print(f" (did you mean {found[0]}?)" if found else "")
PYTHON
}

# need_value OPTION "$@" refuses an option that came last, without its value.
need_value() { [[ $# -ge 3 ]] || fail "$1 needs a value; see --help."; }

check_jobs() {
  [[ $1 =~ ^[1-9][0-9]*$ ]] || fail "-j takes a whole number from 1 up, not '$1'."
}

check_seeds() {
  [[ $1 =~ ^[0-9]+(\ +[0-9]+)*$ ]] ||
    fail "--seeds takes whole numbers such as \"0 1 2\", not '$1'."
}

# A relative folder is meant from where the user stands.
absolute() {
  case $1 in
    /*) echo "$1" ;;
    *) echo "$CALLED_FROM/$1" ;;
  esac
}

# set_extra OPTION...: EXTRA, the further options of each training command, and DATA, the place that
# its --data names.
set_extra() {
  while [[ $# -gt 0 ]]; do
    case $1 in
      --data) need_value "$1" "$@"; DATA=$(absolute "$2"); shift ;;
      --data=*) DATA=$(absolute "${1#--data=}") ;;
      *) EXTRA+=("$1") ;;
    esac
    shift
  done
  EXTRA+=(${DATA:+--data "$DATA"})
}

# prepare_python SETUP: sets up (yes), or with --no-setup (no) takes the Python that is there.
prepare_python() {
  if [[ $1 == yes ]]; then
    bash setup.sh
    PYTHON=.venv/bin/python
  elif [[ -n ${CONDA_PREFIX:-} ]]; then
    PYTHON=${PYTHON:-$CONDA_PREFIX/bin/python} # a .venv from earlier must not hide it
  fi
  choose_python
  export PYTHON
}

# The user's PYTHON, else the checkout's own environment, else python3.
choose_python() {
  if [[ -z ${PYTHON:-} ]]; then
    PYTHON=python3
    [[ ! -x .venv/bin/python ]] || PYTHON=.venv/bin/python
  fi
}

parse_arguments() {
  choose_python
  check_seeds "$SEEDS"
  while [[ $# -gt 0 ]]; do
    case $1 in
      -j) need_value "$1" "$@"; check_jobs "$2"; JOBS=$2; shift ;;
      -j[0-9]*) check_jobs "${1#-j}"; JOBS=${1#-j} ;;
      --seeds) need_value "$1" "$@"; check_seeds "$2"; SEEDS=$2; shift ;;
      --out) need_value "$1" "$@"; OUT=$(absolute "$2"); shift ;;
      --dry-run) MODE=print ;;
      --slurm) MODE=slurm ;;
      -h | --help) print_usage; exit 0 ;;
      --) shift; set_extra "$@"; break ;;
      *) fail "unknown option '$1'$(nearest "$1" -j --seeds --out --dry-run --slurm --help);" \
        "training options go after --." ;;
    esac
    shift
  done
}

# run MODULE ARGUMENT... adds one run: a line of shell-quoted words.
run() {
  local words
  printf -v words '%q ' "$PYTHON" -m "$@" --out "$OUT" "${EXTRA[@]}"
  COMMANDS+=("${words% }")
}

check_packages() {
  "$PYTHON" -c 'from importlib.util import find_spec as f; exit(not (f("torch") and f("rich")))' ||
    fail "$PYTHON has no torch or no rich; run ./setup.sh once, or name another Python with" \
      "PYTHON=..."
}

# check_data CHECK runs the command of a Check line; failing, it says in a sentence what is wrong.
check_data() {
  local words
  read -ra words <<<"$1"
  [[ -z $1 ]] || "$PYTHON" -m "${words[@]}" ${DATA:+--folder "$DATA"} >/dev/null
}

print_commands() { printf '%s\n' "${COMMANDS[@]}"; }

# One job array; its task i runs line i of a saved file of commands.
submit() {
  command -v sbatch >/dev/null ||
    fail "sbatch was not found; --slurm works where Slurm is installed (without it: -j N)."
  local file
  { mkdir -p "$OUT/slurm" && file=$(mktemp "$OUT/slurm/$EXPERIMENT-XXXXXX.txt"); } 2>/dev/null ||
    fail "--out: $OUT/slurm cannot be written; change its permissions or choose another folder."
  print_commands >"$file"
  sbatch --job-name="$EXPERIMENT" --array="1-${#COMMANDS[@]}${JOBS:+%$JOBS}" --requeue \
    --chdir="$PWD" --output="${file%.txt}-%a.log" --open-mode=append \
    --wrap="exec bash -c \"\$(sed -n \"\${SLURM_ARRAY_TASK_ID}p\" $(printf '%q' "$file"))\""
}

finish() {
  case $MODE in
    print) print_commands ;;
    slurm)
      check_packages
      check_data "$(header "$SCRIPT" Check)"
      submit
      ;;
    launch)
      check_packages
      check_data "$(header "$SCRIPT" Check)"
      # exec: a signal for this script then reaches the launcher, which ends the runs.
      exec "$PYTHON" -m common.launch -j "${JOBS:-$CORES}" --logs "$OUT/logs" \
        < <(print_commands)
      ;;
  esac
}
