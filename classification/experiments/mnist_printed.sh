#!/usr/bin/env bash
# Experiment: mnist_printed - Tables 1 to 3 on MNIST-LT at the printed learning rate
# Paper: Table 1, Table 2 and Table 3 (MNIST-LT), beside docs/mnist-readings.md's reading of them
# Data: none to fetch (data_prep/mnist_4_9.npz is in the repository)
# Cost: 58 runs a seed of about 35 s alone, 50 s where two share a machine (l2rw 5 times as long): 27 minutes on 2 cores
# Smoke: SEEDS=0 IMBALANCES=99 METHODS=eql TAUS=1
SEEDS=${SEEDS:-"0 1 2"}
IMBALANCES=${IMBALANCES:-"99 199"}
METHODS=${METHODS:-"ce l2rw cdb-w-fl eql cb cfs focal"}
TAUS=${TAUS:-"0.5 1 1.5 2 5 linear polynomial logarithmic sigmoid sigmoid-accv sigmoid-code"}
[[ $- == *p* ]] || exec "$BASH" -p "$0" "$@" # no function of the user's shell; experiment.sh
source "$(dirname "$(realpath "${BASH_SOURCE[0]}")")/../../common/launching/experiment.sh"
parse_arguments "$@"

# train METHOD-OPTION... at the printed rate, with the pixels that suit it, at each imbalance.
train() {
  local imbalance
  for imbalance in $IMBALANCES; do
    run classification.train mnist-lt --group mnist-lt-printed --imbalance "$imbalance" "$@" \
      --learning-rate 0.001 --input-scaling raw --loss-reduction batch-size
  done
}

for seed in $SEEDS; do
  for method in $METHODS; do
    train --method "$method" --seed "$seed"
  done
  for tau in $TAUS; do
    for method in cdb-w-ce cdb-s; do
      train --method "$method" --tau "$tau" --seed "$seed"
    done
  done
done
finish
