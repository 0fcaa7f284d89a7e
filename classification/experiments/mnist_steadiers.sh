#!/usr/bin/env bash
# Experiment: mnist_steadiers - law of tau x steadier of the difficulty, MNIST-LT, imbalance 99 and 199
# Paper: Sec. 3.1 and 3.1.2, beyond what they have: docs/choosing-tau.md
# Data: none to fetch (data_prep/mnist_4_9.npz is in the repository)
# Cost: 208 runs of about 35 s alone, 50 s where two share a machine: 87 minutes on 2 cores
# Smoke: SEEDS=0 IMBALANCES=99 TAUS=1 STEADIERS="both deferred" METHODS=cdb-s OTHERS= DEFER=1
SEEDS=${SEEDS:-"0 1"} # the first round; the second has ten
IMBALANCES=${IMBALANCES:-"99 199"}
METHODS=${METHODS:-"cdb-w-ce cdb-s"}
TAUS=${TAUS:-"sigmoid sigmoid-accv sigmoid-code 1 2"}
STEADIERS=${STEADIERS:-"none average prior both deferred"}
OTHERS=${OTHERS-"ce balanced-softmax"} # beside them
DEFER=${DEFER:-50} # the epoch from which on deferred weights are in force: half of them
[[ $- == *p* ]] || exec "$BASH" -p "$0" "$@" # no function of the user's shell; experiment.sh
source "$(dirname "$(realpath "${BASH_SOURCE[0]}")")/../../common/launching/experiment.sh"
parse_arguments "$@"
train() {
  local imbalance
  for imbalance in $IMBALANCES; do
    run classification.train mnist-lt --imbalance "$imbalance" "$@"
  done
}

run_steadied
finish
