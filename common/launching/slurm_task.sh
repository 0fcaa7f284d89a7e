#!/usr/bin/env bash
# One task of a Slurm array, submitted by experiment.sh: runs the line of a file of commands that has
# the task's number.
#
# USR1 is Slurm's warning before a time limit or preemption (--signal=B:USR1@...) and comes to this
# script alone: the run is asked to stop at a checkpoint, and the task goes back into the queue.
# TERM comes to all processes of the task when Slurm ends it, so that it is not passed on (torchrun
# bears one, not two); after preemption Slurm requeues the task itself, after scancel nobody does.
[[ $- == *p* ]] || exec "$BASH" -p "$0" "$@" # as in experiment.sh
set +o posix -euo pipefail
unset BASH_ENV PYTHONSAFEPATH PYTHONHOME PYTHONINSPECT

# A run that was stopped before a checkpoint so often in a row would do so for ever: the time limit is
# too short for it.
readonly MOST_EARLY_STOPS=10

WARNED=no
ENDED=no
PID=
LOG=$(readlink "/proc/$$/fd/1")

warn() {
  WARNED=yes
  [[ -z $PID ]] || kill -TERM "$PID" 2>/dev/null || true
}

# wait_for_run waits to the run's end; its exit code. Not by 'wait' alone: of two signals at a time bash
# would tell one and forget the other until the run has ended.
wait_for_run() {
  while kill -0 "$PID" 2>/dev/null; do
    sleep 0.5 || true
  done
  wait "$PID"
}

# Starts of the run since it last stopped after a checkpoint, this one included; all of them are in
# one log. Nothing if that cannot be read.
starts_without_checkpoint() {
  awk '/^\$ / { starts++ } /^stopped after a checkpoint/ { starts = 0 } END { print starts + 0 }' \
    "$LOG" 2>/dev/null || true
}

# requeue CODE puts a run that was warned back into the queue.
requeue() {
  local starts
  starts=$(starts_without_checkpoint)
  if [[ ${starts:-0} -gt $MOST_EARLY_STOPS ]]; then
    echo "not requeued: stopped before a checkpoint, $starts times in a row"
    echo "ended with exit code $1"
    exit "$1"
  fi
  echo "stopped after Slurm's warning; requeued"
  scontrol requeue "$SLURM_JOB_ID"
}

trap warn USR1
trap 'ENDED=yes' TERM
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} PYTHONUNBUFFERED=1

line=$(sed -n "${SLURM_ARRAY_TASK_ID:-1}p" "$1")
echo "\$ $line"
"$BASH" -p -c "exec $line" </dev/null &
PID=$!
[[ $WARNED == no ]] || kill -TERM "$PID"
code=0
wait_for_run || code=$?

# An error of the user comes again; of torchrun a request to stop and an error look the same, but the
# error will not be warned every time.
if [[ $code -eq 0 || $code -eq 2 ]]; then
  echo "ended with exit code $code"
elif [[ $ENDED == yes ]]; then
  echo "stopped by Slurm"
elif [[ $WARNED == yes ]]; then
  requeue "$code"
else
  echo "ended with exit code $code"
fi
exit "$code"
