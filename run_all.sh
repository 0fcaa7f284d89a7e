#!/usr/bin/env bash
# Sets up, runs experiments, prints the table beside the paper's, draws the figures and
# writes the report: see --help.
[[ $- == *p* ]] || exec "$BASH" -p "$0" "$@" # no function of the user's shell; experiment.sh
source "$(dirname "$(realpath "${BASH_SOURCE[0]}")")/common/launching/experiment.sh"

readonly DEFAULT=mnist_table1
mapfile -t SCRIPTS < <(LC_ALL=C; printf '%s\n' */experiments/*.sh) # in one order for all languages

SEEDS=
CHOSEN=()
ALL=no
SETUP=yes
SMOKE=no
STATUS=no
PASSED=() # options for the experiments

print_usage() {
  cat <<USAGE
Usage: ./run_all.sh [OPTION...] [EXPERIMENT...] [-- TRAINING_OPTION...]

Sets up if needed (.venv), runs the experiments, prints the table beside the paper's, draws the
figures and writes one HTML report. Without a name: $DEFAULT with seed 0, the main job.

  --list           every experiment: its paper table, the data it needs, its cost
  --status         what has become of the runs, here and under Slurm: finished, running, queued,
                   failed (and why), stopped, missing; of the experiments named, or of all
  --smoke          every experiment whose data is there (or those named), very short, with figures
                   and report, anew in runs/smoke
  -j N             run N at a time (default: the number of cores)
  --seeds "0 1"    the seeds (default: the experiment's own)
  --out FOLDER     where runs and report go (default: runs)
  --gpus N         GPUs of each run, through torchrun if more than one
  --dry-run        print the commands, run nothing; with --slurm those of sbatch too
  --slurm          submit each experiment as one Slurm job array, and a job that makes tables and
                   figures when all have ended; -j N limits each array; docs/slurm.md
$(print_slurm_options)
  --no-setup       use the Python that is there: PYTHON=..., else the active conda environment's,
                   else .venv, else python3
  -h, --help       this text
  -- OPTION...     further options for each training command, such as -- --epochs 2, or
                   -- --data FOLDER for data that is not in its usual place

Finished runs are skipped; an interrupted one continues from its last checkpoint.
USAGE
}

list_experiments() {
  local script
  for script in "${SCRIPTS[@]}"; do
    echo "$(header "$script" Experiment)"
    echo "    paper  $(header "$script" Paper)"
    echo "    data   $(header "$script" Data)"
    echo "    cost   $(header "$script" Cost)"
    echo "    script $script"
  done
}

names() { basename --suffix=.sh --multiple "${SCRIPTS[@]}"; }

script_of() { printf '%s\n' "${SCRIPTS[@]}" | grep "/$1\.sh$"; }

parse_command_line() {
  local own=(--list --smoke --status --no-setup --help)
  while [[ $# -gt 0 ]]; do
    if take_shared "$@"; then
      PASSED+=("${@:1:TAKEN}")
      shift "$TAKEN"
      continue
    fi
    case $1 in
      --list) list_experiments; exit 0 ;;
      --smoke) SMOKE=yes ;;
      --status) STATUS=yes ;;
      --no-setup) SETUP=no ;;
      -h | --help) print_usage; exit 0 ;;
      --) shift; set_extra "$@"; break ;;
      -*) fail "unknown option '$1'$(nearest "$1" "${own[@]}" "${SHARED[@]}"); see --help." ;;
      *) choose "$1" ;;
    esac
    shift
  done
  check_options
}

choose() {
  local all
  mapfile -t all < <(names)
  [[ " ${all[*]} " == *" $1 "* ]] ||
    fail "there is no experiment '$1'$(nearest "$1" "${all[@]}"); ./run_all.sh --list names them."
  CHOSEN+=("$1")
}

# Few and very short runs: the settings of each experiment's Smoke line, and two epochs (the second
# uses the difficulties that the first has measured). Always anew, since finished runs would be
# skipped and exercise nothing.
choose_smoke() {
  if [[ ${#CHOSEN[@]} -eq 0 ]]; then
    ALL=yes
    mapfile -t CHOSEN < <(names)
  fi
  EXTRA=(--epochs 2 "${EXTRA[@]}")
  OUT=$OUT/smoke
  [[ $DRY == no && $STATUS == no ]] || return 0
  [[ ! -e $OUT || -e $OUT/logs/commands.txt ]] ||
    fail "the folder $OUT was not made by --smoke; move it away or choose another one with --out."
  rm -rf "$OUT" 2>/dev/null ||
    fail "the folder $OUT cannot be emptied; remove it or choose another one with --out."
}

# headers NAME prints that line of the chosen experiments, each text once.
headers() {
  local name
  for name in "${CHOSEN[@]}"; do
    header "$(script_of "$name")" "$1"
  done | LC_ALL=C sort -u
}

# One --data cannot be the place of two data sets.
check_place() {
  [[ -z $DATA || $(headers Data | wc -l) -le 1 ]] ||
    fail "-- --data names one data set's place, but these experiments read several; start those of" \
      "each data set apart, or use the data set's own variable (data_prep/README.md)."
}

# Refuses experiments whose data is not there, in a sentence and before anything starts; when all
# experiments are meant, leaves them out.
check_all_data() {
  local checks check problem code
  mapfile -t checks < <(headers Check)
  for check in "${checks[@]}"; do
    code=0
    problem=$(check_data "$check" 2>&1) || code=$?
    if [[ $code -eq 2 && $ALL == yes ]]; then
      leave_out "$check" "${problem#error: }"
    elif [[ $code -ne 0 ]]; then
      echo "$problem" >&2
      exit "$code"
    fi
  done
}

# leave_out CHECK PROBLEM
leave_out() {
  local name kept=() left=()
  for name in "${CHOSEN[@]}"; do
    case $(header "$(script_of "$name")" Check) in
      "$1") left+=("$name") ;;
      *) kept+=("$name") ;;
    esac
  done
  CHOSEN=("${kept[@]}")
  echo "left out: ${left[*]}, since $2" >&2
}

# Makes the folder of the logs and the file of commands, before anything starts.
check_out() {
  { mkdir -p "$OUT/logs" && : >>"$OUT/logs/commands.txt"; } 2>/dev/null ||
    fail "--out: $OUT/logs cannot be written; change its permissions or choose another folder."
}

# experiment NAME OPTION...
experiment() {
  local script
  script=$PWD/$(script_of "$1")
  shift
  local arguments=("${PASSED[@]}" --out "$OUT" "$@")
  [[ -z $SEEDS ]] || arguments+=(--seeds "$SEEDS")
  (
    [[ $SMOKE == no ]] || eval "export $(header "$script" Smoke)"
    cd "$CALLED_FROM" # a relative CACHE is meant from there
    exec bash "$script" "${arguments[@]}" -- "${EXTRA[@]}"
  )
}

# Runs a command so that a signal for this script ends it, and then this script.
run_interruptible() {
  "$@" <&0 & # else in the background it would read from nothing
  local child=$!
  trap 'kill -TERM "$child" 2>/dev/null; wait "$child"; exit 143' TERM HUP
  trap 'kill -TERM "$child" 2>/dev/null; wait "$child"; exit 130' INT
  local code=0
  wait "$child" || code=$?
  trap - TERM HUP INT
  return "$code"
}

print_all_commands() {
  local name
  for name in "${CHOSEN[@]}"; do
    experiment "$name" --dry-run || exit
  done
}

# One launcher for all, so that the remaining time is that of the whole job.
run_experiments() {
  local commands=$1
  echo "Experiments: ${CHOSEN[*]} ($(wc -l <<<"$commands") runs, $(jobs_at_a_time) at a time)"
  # Not from the file: another launch into the same folder writes its own there.
  run_interruptible "$PYTHON" -m common.launching.local -j "$(jobs_at_a_time)" --logs "$OUT/logs" \
    <<<"$commands"
}

# The arrays of all experiments, and the report that waits for their end, however that is.
submit_experiments() {
  local name said jobs
  for name in "${CHOSEN[@]}"; do
    said=$(experiment "$name") || {
      take_back # the experiment has said what is wrong
      exit 2
    }
    echo "$said"
    mapfile -t jobs < <(sed -n "s/^$name: job \([0-9]*\), .*/\1/p" <<<"$said")
    [[ $DRY == no ]] || jobs=("JOB_$name")
    JOBS_SUBMITTED+=("${jobs[@]}")
  done
  submit_report
}

submit_report() {
  local jobs=${JOBS_SUBMITTED[*]} words
  EXPERIMENT=report
  printf -v words '%q ' "$PYTHON" -m analysis.report --runs "$OUT" --out "$OUT/report"
  words=${words% }
  write_commands "$words"
  if ! sbatch_commands --job-name=report --output="${OUT//%/%%}/slurm/report-%j.log" \
    --dependency="afterany:${jobs// /:}"; then
    echo "$REFUSAL; when the jobs have ended: $words" >&2
  elif [[ $DRY == yes ]]; then
    echo "  $words"
  else
    echo "report: job $JOB, after them; then see $OUT/report"
  fi
}

# The Python that is there, without a set-up: enough to look and to print.
prepare_to_look() {
  if [[ $SETUP == yes && -z ${PYTHON:-} && -x .venv/bin/python ]]; then
    PYTHON=.venv/bin/python
  fi
  prepare_python no
}

# What has become of the runs; their commands say where each is.
print_status() {
  local name lines
  lines=$(for name in "${CHOSEN[@]}"; do
    echo "# $name"
    experiment "$name" --dry-run || exit
  done)
  "$PYTHON" -m common.launching.states --out "$OUT" <<<"$lines"
}

parse_command_line "$@"
[[ $SMOKE == no ]] || choose_smoke
if [[ ${#CHOSEN[@]} -eq 0 && $STATUS == yes ]]; then
  mapfile -t CHOSEN < <(names)
elif [[ ${#CHOSEN[@]} -eq 0 ]]; then
  CHOSEN=("$DEFAULT")
  SEEDS=${SEEDS:-0}
fi
check_place
if [[ $STATUS == yes ]]; then
  prepare_to_look
  check_packages
  print_status
  exit
fi
if [[ $DRY == yes ]]; then
  prepare_to_look
  if [[ $MODE == slurm ]]; then
    submit_experiments
  else
    print_all_commands
  fi
  exit
fi
[[ $MODE != slurm ]] || check_sbatch
check_out
prepare_python "$SETUP"
check_packages
check_all_data
if [[ $MODE == slurm ]]; then
  submit_experiments
  exit
fi
commands=$(print_all_commands)
echo "$commands" >"$OUT/logs/commands.txt"
warn_without_gpus
code=0
run_experiments "$commands" || code=$?
[[ $code -lt 128 ]] || exit "$code"
"$PYTHON" -m analysis.report --runs "$OUT" --out "$OUT/report"
exit "$code"
