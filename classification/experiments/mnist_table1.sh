#!/usr/bin/env bash
# Experiment: mnist_table1 - all methods on MNIST-LT (digits 4 and 9), imbalance 99 and 199
# Paper: Table 1 (MNIST-LT); claims M1, M2, M3
# Data: none to fetch (data_prep/mnist_4_9.npz is in the repository)
# Cost: 180 runs of about 35 s alone, 50 s where two share a machine (l2rw 5 times as long): 110 minutes on 2 cores (one seed: 11 minutes)
# Smoke: SEEDS=0 IMBALANCES=99
SEEDS=${SEEDS:-"0 1 2 3 4 5 6 7 8 9"}
IMBALANCES=${IMBALANCES:-"99 199"}
[[ $- == *p* ]] || exec "$BASH" -p "$0" "$@" # no function of the user's shell; experiment.sh
source "$(dirname "$(realpath "${BASH_SOURCE[0]}")")/../../common/launching/experiment.sh"
parse_arguments "$@"

# The slowest method early, so that no core stands idle at the end; before it a usual one, so that the
# launcher does not take all others to be as slow.
for method in ce l2rw cdb-w-fl cdb-w-ce cdb-s eql cb cfs focal; do
  for imbalance in $IMBALANCES; do
    for seed in $SEEDS; do
      run classification.train mnist-lt --method "$method" --imbalance "$imbalance" --seed "$seed"
    done
  done
done
finish
