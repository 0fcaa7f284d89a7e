#!/usr/bin/env bash
# Experiment: cifar100_readings - CDB-W-CE on CIFAR100-LT: sigmoid tau and reduction of the loss, 30 epochs
# Paper: Sec. 3.2 (Eqs. 10 and 11), what it leaves open; on a short schedule: not the paper's experiment
# Data: CIFAR-100: see data_prep/README.md
# Check: data_prep.cifar100 check
# Cost: 6 runs of about 12 min on one core with bfloat16 instructions (AMD EPYC, Zen 5)
# Smoke: SEEDS=0 IMBALANCES=200 TAUS=sigmoid-accv REDUCTIONS=weight-sum
SEEDS=${SEEDS:-0}
IMBALANCES=${IMBALANCES:-100}
TAUS=${TAUS:-"sigmoid sigmoid-accv sigmoid-code"}
REDUCTIONS=${REDUCTIONS:-"batch-size weight-sum"}
source "$(dirname "${BASH_SOURCE[0]}")/../../common/experiment.sh"
parse_arguments "$@"

for reduction in $REDUCTIONS; do
  for tau in $TAUS; do
    for imbalance in $IMBALANCES; do
      for seed in $SEEDS; do
        run classification.train cifar100-lt-short --group cifar100-lt-short-readings \
          --method cdb-w-ce --imbalance "$imbalance" --seed "$seed" \
          --tau "$tau" --loss-reduction "$reduction"
      done
    done
  done
done
finish
