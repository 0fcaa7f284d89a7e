#!/usr/bin/env bash
# Experiment: cifar100_steadiers - law of tau x steadier of the difficulty, CIFAR100-LT at weight decay 5e-4
# Paper: Sec. 3.1 and 3.1.2, beyond what they have: docs/choosing-tau.md
# Data: CIFAR-100: see data_prep/README.md
# Check: data_prep.cifar100 check
# Cost: 52 runs a seed; measured: one 1 min on an H100, 130 min on one AMD EPYC core with bfloat16 instructions
# Smoke: SEEDS=0 TAUS=1 STEADIERS=average METHODS=cdb-w-ce OTHERS=
SEEDS=${SEEDS:-"0 1 2"}
METHODS=${METHODS:-"cdb-w-ce cdb-s"}
TAUS=${TAUS:-"1 sigmoid-accv sigmoid-code 2 sigmoid"} # the most wanted first
STEADIERS=${STEADIERS:-"average deferred both prior none"}
OTHERS=${OTHERS-"balanced-softmax ce"} # beside them
DEFER=${DEFER:-160} # the epoch from which on deferred weights are in force: the first fall of the rate
[[ $- == *p* ]] || exec "$BASH" -p "$0" "$@" # no function of the user's shell; experiment.sh
source "$(dirname "$(realpath "${BASH_SOURCE[0]}")")/../../common/launching/experiment.sh"
parse_arguments "$@"
train() { run classification.train cifar100-lt --group cifar100-lt-recipe --weight-decay 5e-4 "$@"; }

run_steadied
finish
