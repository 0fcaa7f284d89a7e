#!/usr/bin/env bash
# Experiment: cifar100_table1 - all methods on CIFAR100-LT, imbalance 10 and 100
# Paper: Table 1 (CIFAR100-LT); claims C1, C2, C3
# Data: CIFAR-100: see data_prep/README.md
# Check: data_prep.cifar100 check
# Cost: 72 runs; measured: one at imbalance 100 1 min on an H100 (l2rw and meta-weight-net 4), 130 min on one AMD EPYC core with bfloat16 instructions
# Smoke: SEEDS=0 IMBALANCES=200 METHODS=ce
SEEDS=${SEEDS:-"0 1 2"}
IMBALANCES=${IMBALANCES:-"10 100"}
# Two slow methods early, so that no core stands idle at the end; before them a usual one, so that the
# launcher does not take all others to be as slow. class-aware is an extra: Table 1
# has it for ImageNet-LT only.
ALL="ce l2rw meta-weight-net cdb-w-ce cdb-s cdb-w-fl ldam-drw eql cb cfs focal class-aware"
METHODS=${METHODS:-$ALL}
[[ $- == *p* ]] || exec "$BASH" -p "$0" "$@" # no function of the user's shell; experiment.sh
source "$(dirname "$(realpath "${BASH_SOURCE[0]}")")/../../common/launching/experiment.sh"
parse_arguments "$@"

for method in $METHODS; do
  for imbalance in $IMBALANCES; do
    for seed in $SEEDS; do
      run classification.train cifar100-lt --method "$method" --imbalance "$imbalance" --seed "$seed"
    done
  done
done
finish
