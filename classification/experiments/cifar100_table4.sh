#!/usr/bin/env bash
# Experiment: cifar100_table4 - decoupled learning (cRT, LWS) on CIFAR100-LT, imbalance 10 and 100
# Paper: Table 4; claims C6, C7
# Data: CIFAR-100: see data_prep/README.md
# Check: data_prep.cifar100 check
# Cost: 18 + 108 runs; measured: one of the 18 at imbalance 100 1 min on an H100, 130 min on one AMD EPYC core with bfloat16 instructions; a second stage 15 s, 5 min
# Smoke: SEEDS=0 IMBALANCES=200 STAGE1=ce CLASSIFIERS=crt STAGE2=cdb-s STAGE1_EPOCHS=2
SEEDS=${SEEDS:-"0 1 2"}
IMBALANCES=${IMBALANCES:-"10 100"}
STAGE1=${STAGE1:-"ce cdb-w-ce cdb-s"}
CLASSIFIERS=${CLASSIFIERS:-"crt lws"}
STAGE2=${STAGE2:-"class-aware cdb-w-ce cdb-s"}
STAGE1_EPOCHS=${STAGE1_EPOCHS:-} # if not the recipe's; -- --epochs N alone leaves it
[[ $- == *p* ]] || exec "$BASH" -p "$0" "$@" # no function of the user's shell; experiment.sh
source "$(dirname "$(realpath "${BASH_SOURCE[0]}")")/../../common/launching/experiment.sh"
parse_arguments "$@"

# The first stages themselves come first (Table 1 has them too), and the second stages in the same
# order: a second stage waits for a first stage that another process trains.
for method in $STAGE1; do
  for imbalance in $IMBALANCES; do
    for seed in $SEEDS; do
      run classification.train cifar100-lt --method "$method" --imbalance "$imbalance" --seed "$seed" \
        ${STAGE1_EPOCHS:+--epochs "$STAGE1_EPOCHS"}
    done
  done
done

second_stages() {
  local classifier method
  for classifier in $CLASSIFIERS; do
    for method in $STAGE2; do
      run classification.train "cifar100-lt-$classifier" --stage1 "$1" --method "$method" \
        --imbalance "$2" --seed "$3" ${STAGE1_EPOCHS:+--stage1-epochs "$STAGE1_EPOCHS"}
    done
  done
}

for stage1 in $STAGE1; do
  for imbalance in $IMBALANCES; do
    for seed in $SEEDS; do
      second_stages "$stage1" "$imbalance" "$seed"
    done
  done
done
finish
