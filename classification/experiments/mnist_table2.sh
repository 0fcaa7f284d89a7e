#!/usr/bin/env bash
# Experiment: mnist_table2 - the effect of tau on CDB-W-CE, MNIST-LT, imbalance 99 and 199
# Paper: Table 2 (MNIST-LT), and the two other sigmoid versions
# Data: none to fetch (data_prep/mnist_4_9.npz is in the repository)
# Cost: 220 runs of about 35 s alone, 50 s where two share a machine: 90 minutes on 2 cores
# Smoke: SEEDS=0 IMBALANCES=199 TAUS="0.5 linear logarithmic"
SEEDS=${SEEDS:-"0 1 2 3 4 5 6 7 8 9"}
IMBALANCES=${IMBALANCES:-"99 199"}
DYNAMIC="linear polynomial logarithmic sigmoid sigmoid-accv sigmoid-code"
TAUS=${TAUS:-"0.5 1.0 1.5 2.0 5.0 $DYNAMIC"}
[[ $- == *p* ]] || exec "$BASH" -p "$0" "$@" # no function of the user's shell; experiment.sh
source "$(dirname "$(realpath "${BASH_SOURCE[0]}")")/../../common/launching/experiment.sh"
parse_arguments "$@"

for tau in $TAUS; do
  for imbalance in $IMBALANCES; do
    for seed in $SEEDS; do
      run classification.train mnist-lt --method cdb-w-ce --tau "$tau" \
        --imbalance "$imbalance" --seed "$seed"
    done
  done
done
finish
