#!/usr/bin/env bash
# A Slurm of one machine, for a test: its own munge, configuration, ports and folder; no systemd, no
# cgroups. It leaves a Slurm that the machine has alone.
#
#   cluster.sh start FOLDER [PID]   starts it and waits until it takes jobs; SLURM_CONF=FOLDER/slurm.conf
#                                   then makes sbatch, squeue and so on speak to it; at the latest when
#                                   process PID ends, it is stopped
#   cluster.sh stop FOLDER          ends its jobs and daemons, and removes FOLDER
#   cluster.sh missing              names the programs that are not installed, if any
#   cluster.sh install              installs them from Debian's or Ubuntu's packages, for root where they
#                                   can be had soon; 1: not
#
# Two jobs of one processor at a time. A job in the partition 'high' preempts one in 'low', which is
# asked to stop (SIGTERM), ended KillWait seconds later and put back into the queue.
set -euo pipefail

SELF=$(realpath "$0")
readonly SELF
readonly PROGRAMS=(slurmctld slurmd sbatch srun scontrol munged mungekey)
readonly WAIT_SECONDS=30
PATH=$PATH:/usr/sbin:/sbin # of the daemons; not every user's

fail() {
  echo "error: $*" >&2
  exit 2
}

missing() {
  local program
  for program in "${PROGRAMS[@]}"; do
    command -v "$program" >/dev/null || echo "$program"
  done
}

install() {
  [[ -n $(missing) ]] || return 0
  [[ $(id -u) -eq 0 ]] && command -v apt-get >/dev/null || return 1
  local options=(-o Acquire::Retries=0 -o Acquire::http::Timeout=10 -o Acquire::https::Timeout=10)
  export DEBIAN_FRONTEND=noninteractive
  timeout 60 apt-get "${options[@]}" update || true
  timeout 180 apt-get "${options[@]}" install --yes --no-install-recommends \
    slurmctld slurmd slurm-client munge
} >/dev/null 2>&1

free_port() {
  python3 -c 'import socket
with socket.socket() as s:
    s.bind(("", 0))
    print(s.getsockname()[1])'
}

write_configuration() {
  local user host
  user=$(id -un)
  host=$(hostname -s)
  # cred_expire: a requeued job waits as long before it may start again. config_overrides: the machine
  # may have fewer processors.
  cat >slurm.conf <<CONF
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$(free_port)
SlurmdPort=$(free_port)
SlurmUser=$user
SlurmdUser=$user
AuthType=auth/munge
AuthInfo=socket=$PWD/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation=$PWD/state
SlurmdSpoolDir=$PWD/spool
SlurmctldPidFile=$PWD/slurmctld.pid
SlurmdPidFile=$PWD/slurmd.pid
SlurmctldLogFile=$PWD/slurmctld.log
SlurmdLogFile=$PWD/slurmd.log
PlugStackConfig=$PWD/plugstack.conf
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=2,sched_min_interval=100000
MaxArraySize=5
KillWait=10
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName=$host NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=low Nodes=$host Default=YES PriorityTier=1
PartitionName=high Nodes=$host PriorityTier=10 PreemptMode=OFF
CONF
}

start_daemons() {
  mungekey --create --keyfile="$PWD/munge.key"
  munged --force --key-file="$PWD/munge.key" --socket="$PWD/munge.socket" \
    --pid-file="$PWD/munged.pid" --log-file="$PWD/munged.log" --seed-file="$PWD/munged.seed"
  slurmctld -f "$SLURM_CONF" -c
  slurmd -f "$SLURM_CONF" -N "$(hostname -s)"
}

# wait_for WORDS COMMAND... waits until the command succeeds.
wait_for() {
  local words=$1 deadline=$((SECONDS + WAIT_SECONDS))
  shift
  until "$@" >/dev/null 2>&1; do
    [[ $SECONDS -lt $deadline ]] ||
      fail "$words after $WAIT_SECONDS s; $PWD/slurmctld.log and slurmd.log say why."
    sleep 0.2
  done
}

takes_jobs() { sinfo --noheader --format=%t | grep -qx idle; }

# stop_after FOLDER PID stops the cluster when the process has ended.
stop_after() {
  while alive "$2" && [[ -e $1/slurm.conf ]]; do
    sleep 1
  done
  [[ ! -e $1/slurm.conf ]] || stop "$1"
}

# start FOLDER [PID]
start() {
  local absent
  absent=$(missing)
  [[ -z $absent ]] ||
    fail "${absent//$'\n'/, } is not installed; as root: apt-get install slurm-wlm munge."
  mkdir -p "$1"
  cd "$1"
  mkdir -m 755 state spool
  : >plugstack.conf # else the machine's own would be read
  write_configuration
  start_daemons
  wait_for "Slurm takes no jobs" takes_jobs
  [[ $# -eq 1 ]] || setsid "$SELF" stop-after "$1" "$2" </dev/null >/dev/null 2>&1 &
}

# alive PID; not one that has ended and that nobody has asked for its end.
alive() { [[ $(ps -o stat= -p "$1") == [!Z]* ]]; }

# end_process PIDFILE
end_process() {
  local pid
  pid=$(cat "$1" 2>/dev/null) || return 0
  kill -TERM "$pid" 2>/dev/null || return 0
  local deadline=$((SECONDS + WAIT_SECONDS))
  while alive "$pid"; do
    [[ $SECONDS -lt $deadline ]] || kill -KILL "$pid" 2>/dev/null || true
    sleep 0.1
  done
}

no_jobs() { [[ -z $(squeue --noheader) ]]; }

stop() {
  cd "$1"
  [[ -e slurm.conf ]] || fail "$1 is not the folder of a cluster that this script has started."
  if [[ -e slurmctld.pid ]]; then
    scancel --user="$(id -un)" --full 2>/dev/null || true
    wait_for "Jobs are still there" no_jobs
  fi
  end_process slurmd.pid
  end_process slurmctld.pid
  end_process munged.pid
  cd /
  rm -rf "$1"
}

export SLURM_CONF=${2:-}/slurm.conf
case "${1:-} $#" in
  "start 2" | "start 3") start "${@:2}" ;;
  "stop-after 3") stop_after "$2" "$3" ;;
  "stop 2") stop "$2" ;;
  "missing 1") missing ;;
  "install 1") install ;;
  *) fail "usage: $0 start FOLDER [PID], $0 stop FOLDER, $0 missing or $0 install." ;;
esac
