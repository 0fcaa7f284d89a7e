# What every experiment script shares, and run_all.sh, run_tests.sh and .ci/run with them; see
# classification/experiments/mnist_table1.sh for its use:
#
#   SEEDS=${SEEDS:-"0 1 2"}       the default seeds, before parse_arguments
#   parse_arguments "$@"
#   run MODULE ARGUMENT...        once for each run of the experiment, through torchrun if GPUS > 1
#   finish                        runs them, prints them or hands them to Slurm
#
# Its comment lines '# Experiment:', '# Paper:', '# Data:' and '# Cost:' say what it is; '# Smoke:' are
# its settings for a very short job; '# Check: MODULE ARGUMENT...', where data must be fetched first,
# is run before anything starts, with the folder of --data as its --folder.
#
# Every command is run from the root of the checkout, wherever the script was called.
#
# No variable of the user's shell changes what a script does, but those that it names itself. A bash in
# privileged mode takes no CDPATH, GLOBIGNORE, BASH_ENV, SHELLOPTS, BASHOPTS and no function from it.
[[ $- == *p* ]] || exec "$BASH" -p "$0" "$@"
set +o posix -euo pipefail
unset BASH_ENV BASH_COMPAT CDPATH GLOBIGNORE GLOBSORT EXECIGNORE FUNCNEST TMOUT POSIXLY_CORRECT \
  GREP_OPTIONS PYTHONSAFEPATH PYTHONHOME PYTHONINSPECT "${!GIT_@}"
# A closed output, whose number bash may give to the script itself, is as one that leads nowhere.
{ [[ ! /dev/fd/1 -ef $0 ]] && : 3>&1; } 2>/dev/null || exec >/dev/null
{ [[ ! /dev/fd/2 -ef $0 ]] && : 3>&2; } || exec 2>/dev/null

CALLED_FROM=$PWD
SCRIPT=$(realpath "$0")
cd "$(dirname "$(realpath "${BASH_SOURCE[0]}")")/../.."

EXPERIMENT=$(basename "$SCRIPT" .sh)
MODE=launch # or slurm
DRY=no
JOBS=
GPUS=${GPUS:-} # of each run; a script that needs one sets 1
OUT=runs
EXTRA=()
DATA=
COMMANDS=()
SLURM_OPTIONS=() # of sbatch
WARNING=${WARNING:-120} # seconds from Slurm's warning to the end of a task
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
  --gpus N         GPUs of each run, through torchrun if more than one
  --dry-run        print the commands, run nothing; with --slurm those of sbatch too
  --slurm          submit the runs as one Slurm job array; -j N limits it; docs/slurm.md
$(print_slurm_options)
  -h, --help       this text
  -- OPTION...     further options for each training command, such as -- --epochs 2, or
                   -- --data FOLDER for data that is not in its usual place

Finished runs are skipped; an interrupted one continues from its last checkpoint.
USAGE
}

print_slurm_options() {
  cat <<USAGE
    --partition P  with --slurm: where; also --account A, --qos Q
    --time T       with --slurm: the limit of each run, such as 2:00:00; also --mem M, --cpus N
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

# check_number OPTION VALUE
check_number() {
  [[ $2 =~ ^[1-9][0-9]*$ ]] || fail "$1 takes a whole number from 1 up, not '$2'."
}

# check_form OPTION VALUE PATTERN EXAMPLE
check_form() {
  [[ $2 =~ ^($3)$ ]] || fail "$1 takes what Slurm takes, such as $4, not '$2'."
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

# Options that run_all.sh and the experiments have in common; VALUED: those with a value.
VALUED=(-j --seeds --out --gpus --partition --account --qos --time --mem --cpus)
SHARED=("${VALUED[@]}" --dry-run --slurm)

is_valued() { [[ " ${VALUED[*]} " == *" $1 "* ]]; }

# take_shared "$@" takes one of them and sets TAKEN, the number of its words; 1: it is none of them.
take_shared() {
  TAKEN=2
  case $1 in
    --dry-run) DRY=yes TAKEN=1 ;;
    --slurm) MODE=slurm TAKEN=1 ;;
    -j[0-9]*) check_number -j "${1#-j}"; JOBS=${1#-j} TAKEN=1 ;;
    --*=*)
      is_valued "${1%%=*}" || return 1
      take_value "${1%%=*}" "${1#*=}"
      TAKEN=1
      ;;
    *)
      is_valued "$1" || return 1
      need_value "$1" "$@"
      take_value "$1" "$2"
      ;;
  esac
}

# take_value OPTION VALUE
take_value() {
  case $1 in
    -j) check_number "$@"; JOBS=$2 ;;
    --seeds) check_seeds "$2"; SEEDS=$2 ;;
    --out) OUT=$(absolute "$2") ;;
    --gpus) check_number "$@"; GPUS=$2 ;;
    --cpus) check_number "$@"; SLURM_OPTIONS+=("--cpus-per-task=$2") ;;
    --time) check_form "$@" '([0-9]+-)?[0-9]+(:[0-9]+){0,2}' 2:00:00; SLURM_OPTIONS+=("$1=$2") ;;
    --mem) check_form "$@" '[0-9]+[KMGT]?' 16G; SLURM_OPTIONS+=("$1=$2") ;;
    *) check_form "$@" '[A-Za-z0-9_.,@-]+' 'long or gpu,low'; SLURM_OPTIONS+=("$1=$2") ;;
  esac
}

# After all options are read.
check_options() {
  check_seeds "${SEEDS:-0}"
  check_number GPUS "${GPUS:-1}"
  check_number WARNING "$WARNING"
  [[ $MODE == slurm ]] && return
  [[ ${#SLURM_OPTIONS[@]} -eq 0 ]] ||
    fail "${SLURM_OPTIONS[0]/--cpus-per-task/--cpus} has no effect without --slurm; add it or leave" \
      "the option out."
}

parse_arguments() {
  choose_python
  while [[ $# -gt 0 ]]; do
    if take_shared "$@"; then
      shift "$TAKEN"
      continue
    fi
    case $1 in
      -h | --help) print_usage; exit 0 ;;
      --) shift; set_extra "$@"; break ;;
      *) fail "unknown option '$1'$(nearest "$1" "${SHARED[@]}" --help); training options go" \
        "after --." ;;
    esac
  done
  check_options
  [[ $MODE != slurm ]] || CORES=$(cores_of_task) # those of this machine say nothing about it
}

# What --cpus asked for; without it Slurm gives a task one.
cores_of_task() {
  local option cores=1
  for option in "${SLURM_OPTIONS[@]}"; do
    [[ $option != --cpus-per-task=* ]] || cores=${option#*=}
  done
  echo "$cores"
}

# run MODULE ARGUMENT... adds one run: a line of shell-quoted words.
run() {
  local words program=("$@")
  # '--': torchrun would take --start for its own --start-method.
  [[ ${GPUS:-1} -eq 1 ]] ||
    program=(torch.distributed.run --standalone --nproc-per-node "$GPUS" -m -- "$@")
  printf -v words '%q ' "$PYTHON" -m "${program[@]}" --out "$OUT" "${EXTRA[@]}"
  COMMANDS+=("${words% }")
}

# set_steadier NAME: OPTIONS, those of a steadier of the difficulty; docs/choosing-tau.md
set_steadier() {
  case $1 in
    none) OPTIONS=() ;;
    average) OPTIONS=(--difficulty-average 0.9) ;;
    prior) OPTIONS=(--difficulty-prior 1) ;;
    both) OPTIONS=(--difficulty-average 0.9 --difficulty-prior 1) ;;
    deferred) OPTIONS=(--weights-from-epoch "$DEFER") ;;
    *) fail "STEADIERS are none, average, prior, both or deferred, not '$1'." ;;
  esac
}

# run_steadied calls the script's 'train OPTION...' for each of SEEDS: for OTHERS, and for each of
# STEADIERS, TAUS and METHODS; weights that are deferred are in force from the epoch DEFER on.
run_steadied() {
  local seed method steadier tau
  for seed in $SEEDS; do
    for method in $OTHERS; do
      train --method "$method" --seed "$seed"
    done
    for steadier in $STEADIERS; do
      set_steadier "$steadier"
      for tau in $TAUS; do
        for method in $METHODS; do
          train --method "$method" --tau "$tau" --seed "$seed" "${OPTIONS[@]}"
        done
      done
    done
  done
}

check_packages() {
  "$PYTHON" -c 'from importlib.util import find_spec as f; exit(not (f("torch") and f("rich")))' ||
    fail "$PYTHON has no torch or no rich; run ./setup.sh once, or name another Python with" \
      "PYTHON=..."
}

# warn_without_gpus says it where the processes of each run will share the CPU.
warn_without_gpus() {
  [[ ${GPUS:-1} -gt 1 && " ${EXTRA[*]} " != *" --device"[\ =]"cpu "* ]] || return 0
  "$PYTHON" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' ||
    echo "--gpus $GPUS: this machine has no CUDA device; each run trains in $GPUS processes on the" \
      "CPU." >&2
}

# check_data CHECK runs the command of a Check line; failing, it says in a sentence what is wrong.
check_data() {
  local words
  read -ra words <<<"$1"
  [[ -z $1 ]] || "$PYTHON" -m "${words[@]}" ${DATA:+--folder "$DATA"} >/dev/null
}

# Runs on GPUS share these.
jobs_at_a_time() {
  local jobs=${JOBS:-${GPUS:+1}}
  echo "${jobs:-$CORES}"
}

print_commands() { printf '%s\n' "${COMMANDS[@]}"; }

# The tasks that one array may have at most: by the cluster's settings, else by Slurm's default.
largest_array() {
  local size
  size=$(scontrol show config 2>/dev/null | sed -n 's/^MaxArraySize *= *//p') || true
  echo $((${size:-1001} - 1))
}

check_sbatch() {
  command -v sbatch >/dev/null ||
    fail "sbatch was not found; --slurm works where Slurm is installed (without it: -j N)."
}

# write_commands COMMAND... saves them for the tasks of an array; FILE.
write_commands() {
  FILE=$OUT/slurm/$EXPERIMENT-XXXXXX.txt
  [[ $DRY == no ]] || return 0
  { mkdir -p "$OUT/slurm" && FILE=$(mktemp "$FILE"); } 2>/dev/null ||
    fail "--out: $OUT/slurm cannot be written; change its permissions or choose another folder."
  printf '%s\n' "$@" >"$FILE"
}

# sbatch_commands OPTION... submits common/launching/slurm_task.sh for the commands in FILE; JOB, its number.
# --dry-run prints the command instead. 1: Slurm refuses it; REFUSAL says why.
sbatch_commands() {
  local said words=(
    sbatch --parsable --requeue --chdir="$PWD" --open-mode=append "${SLURM_OPTIONS[@]}" "$@"
    common/launching/slurm_task.sh "$FILE"
  )
  if [[ $DRY == yes ]]; then
    printf -v said '%q ' "${words[@]}"
    echo "${said% }"
    JOB=JOB_$EXPERIMENT
    return
  fi
  if ! said=$("${words[@]}" 2>&1); then
    rm -f "$FILE"
    REFUSAL=$(tail -n 1 <<<"$said")
    REFUSAL="Slurm refuses $EXPERIMENT (${REFUSAL#sbatch: error: })"
    return 1
  fi
  JOB=$(grep -oE '^[0-9]+' <<<"$said" | tail -n 1) || fail "sbatch gave no job's number: $said"
}

# take_back cancels what has been submitted: all or nothing.
take_back() { [[ ${#JOBS_SUBMITTED[@]} -eq 0 ]] || scancel "${JOBS_SUBMITTED[@]}"; }

JOBS_SUBMITTED=()

# submit_array COMMAND... submits them as one array whose task i runs line i.
submit_array() {
  local previous=${JOBS_SUBMITTED[*]: -1} options=(
    --job-name="$EXPERIMENT" --array="1-$#${JOBS:+%$JOBS}"
    --output="${OUT//%/%%}/slurm/$EXPERIMENT-%A_%a.log" --signal="B:USR1@$WARNING"
    ${GPUS:+"--gres=gpu:$GPUS"}
  )
  # Of two arrays each would have its own limit.
  [[ -z $JOBS || -z $previous ]] || options+=(--dependency="afterany:$previous")
  write_commands "$@"
  if ! sbatch_commands "${options[@]}"; then
    take_back
    fail "$REFUSAL; nothing was submitted."
  fi
  JOBS_SUBMITTED+=("$JOB")
  if [[ $DRY == yes ]]; then
    printf '  %s\n' "$@"
  else
    printf '%s\t%s\t%s\n' "$JOB" "$EXPERIMENT" "$FILE" >>"$OUT/slurm/jobs.txt"
    echo "$EXPERIMENT: job $JOB, $# runs; logs in $OUT/slurm/$EXPERIMENT-${JOB}_*.log"
  fi
}

# Job arrays of all runs: one, or as many as the cluster's largest array demands.
submit() {
  local first limit
  [[ $DRY == yes ]] || check_sbatch
  limit=$(largest_array)
  for ((first = 0; first < ${#COMMANDS[@]}; first += limit)); do
    submit_array "${COMMANDS[@]:first:limit}"
  done
}

finish() {
  if [[ $DRY == no ]]; then
    check_packages
    check_data "$(header "$SCRIPT" Check)"
  fi
  case $MODE-$DRY in
    slurm-*) submit ;;
    launch-yes) print_commands ;;
    launch-no)
      warn_without_gpus
      # exec: a signal for this script then reaches the launcher, which ends the runs.
      exec "$PYTHON" -m common.launching.local -j "$(jobs_at_a_time)" --logs "$OUT/logs" \
        < <(print_commands)
      ;;
  esac
}
