#!/usr/bin/env bash
# Experiment: cifar100_table3 - the effect of tau on CDB-S, CIFAR100-LT, imbalance 10 to 200
# Paper: Table 3 (CIFAR100-LT), and the two other sigmoid versions; claim C5
# Data: CIFAR-100: see data_prep/README.md
# Check: data_prep.cifar100 check
# Cost: 165 runs; measured: one at imbalance 100 1 min on an H100, 130 min on one AMD EPYC core with bfloat16 instructions
# Smoke: SEEDS=0 IMBALANCES=200 TAUS=logarithmic
SEEDS=${SEEDS:-"0 1 2"}
IMBALANCES=${IMBALANCES:-"10 20 50 100 200"}
DYNAMIC="linear polynomial logarithmic sigmoid sigmoid-accv sigmoid-code"
TAUS=${TAUS:-"0.5 1.0 1.5 2.0 5.0 $DYNAMIC"}
[[ $- == *p* ]] || exec "$BASH" -p "$0" "$@" # no function of the user's shell; experiment.sh
source "$(dirname "$(realpath "${BASH_SOURCE[0]}")")/../../common/launching/experiment.sh"
parse_arguments "$@"

for tau in $TAUS; do
  for imbalance in $IMBALANCES; do
    for seed in $SEEDS; do
      run classification.train cifar100-lt --method cdb-s --tau "$tau" \
        --imbalance "$imbalance" --seed "$seed"
    done
  done
done
finish
