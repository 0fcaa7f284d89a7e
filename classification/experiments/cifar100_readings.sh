#!/usr/bin/env bash
# Experiment: cifar100_readings - CIFAR100-LT: sigmoid tau (CDB-W-CE) and reduction of the loss (with CB), 30 epochs
# Paper: Sec. 3.2 (Eqs. 10 and 11), what it leaves open; on a short schedule: not the paper's experiment
# Data: CIFAR-100: see data_prep/README.md
# Check: data_prep.cifar100 check
# Cost: 8 runs of about 10 min on one AMD EPYC core with bfloat16 instructions
# Smoke: METHODS=cdb-w-ce SEEDS=0 IMBALANCES=200 TAUS=sigmoid-accv REDUCTIONS=weight-sum
SEEDS=${SEEDS:-0}
IMBALANCES=${IMBALANCES:-100}
TAUS=${TAUS:-"sigmoid sigmoid-accv sigmoid-code"}
REDUCTIONS=${REDUCTIONS:-"batch-size weight-sum"}
METHODS=${METHODS:-"cdb-w-ce cb"}
[[ $- == *p* ]] || exec "$BASH" -p "$0" "$@" # no function of the user's shell; experiment.sh
source "$(dirname "$(realpath "${BASH_SOURCE[0]}")")/../../common/launching/experiment.sh"
parse_arguments "$@"

reading() {
  run classification.train cifar100-lt-short --group cifar100-lt-short-readings \
    --imbalance "$imbalance" --seed "$seed" --loss-reduction "$reduction" --method "$@"
}

for reduction in $REDUCTIONS; do
  for imbalance in $IMBALANCES; do
    for seed in $SEEDS; do
      for tau in $TAUS; do
        reading cdb-w-ce --tau "$tau"
      done
      [[ " $METHODS " != *" cb "* ]] || reading cb
    done
  done
done
finish
