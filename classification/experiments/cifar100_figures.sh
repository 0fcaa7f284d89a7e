#!/usr/bin/env bash
# Experiment: cifar100_figures - class-wise accuracy of CE; focal beside CDB-W-CE, CIFAR100-LT
# Paper: Figure 1, Figure 4, Figure 5 (CIFAR100-LT); claims C8, C9, C10
# Data: CIFAR-100: see data_prep/README.md
# Check: data_prep.cifar100 check
# Cost: 9 runs; measured: one at imbalance 100 1 min on an H100, 130 min on one AMD EPYC core with bfloat16 instructions
# Smoke: SEEDS=0 METHODS="focal cdb-w-ce"
SEEDS=${SEEDS:-"0 1 2"}
METHODS=${METHODS:-"ce focal cdb-w-ce"}
[[ $- == *p* ]] || exec "$BASH" -p "$0" "$@" # no function of the user's shell; experiment.sh
source "$(dirname "$(realpath "${BASH_SOURCE[0]}")")/../../common/launching/experiment.sh"
parse_arguments "$@"

# Figure 1 shows CE at imbalance 100; Figures 4 and 5 compare the other two at 200.
for method in $METHODS; do
  imbalance=200
  [[ $method != ce ]] || imbalance=100
  for seed in $SEEDS; do
    run classification.train cifar100-lt --method "$method" --imbalance "$imbalance" --seed "$seed"
  done
done
finish
