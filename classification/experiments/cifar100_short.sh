#!/usr/bin/env bash
# Experiment: cifar100_short - CIFAR100-LT in 30 of 200 epochs, for machines without a GPU
# Paper: Sec. 4.1 (CIFAR100-LT) on a short schedule: not the paper's experiment
# Data: CIFAR-100: see data_prep/README.md
# Check: data_prep.cifar100 check
# Cost: 18 runs of about 10 min and 6 second stages of 3 to 4 min, on one AMD EPYC core with bfloat16 instructions
# Smoke: SEEDS=0 IMBALANCES=200 METHODS=ce AT_200= TODAY= CLASSIFIERS=lws STAGE2=cdb-w-ce STAGE1_EPOCHS=2
SEEDS=${SEEDS:-"0 1"}
IMBALANCES=${IMBALANCES:-100}
METHODS=${METHODS:-"ce focal cb ldam-drw cdb-s cdb-w-ce"}
AT_200=${AT_200-"focal cdb-w-ce"} # for Figures 4 and 5, with the first seed
# Not in the paper, with the first seed:
TODAY=${TODAY-"balanced-softmax logit-adjustment-post-hoc tau-normalisation mixup"}
CLASSIFIERS=${CLASSIFIERS:-"crt lws"} # of the second stages after ce, with the first seed
STAGE2=${STAGE2:-"class-aware cdb-w-ce cdb-s"}
STAGE1_EPOCHS=${STAGE1_EPOCHS:-} # if not the recipe's; -- --epochs N alone leaves it
[[ $- == *p* ]] || exec "$BASH" -p "$0" "$@" # no function of the user's shell; experiment.sh
source "$(dirname "$(realpath "${BASH_SOURCE[0]}")")/../../common/launching/experiment.sh"
parse_arguments "$@"

for method in $METHODS; do
  for imbalance in $IMBALANCES; do
    for seed in $SEEDS; do
      run classification.train cifar100-lt-short --method "$method" \
        --imbalance "$imbalance" --seed "$seed"
    done
  done
done

first_seed=${SEEDS%% *}
for method in $AT_200; do
  run classification.train cifar100-lt-short --method "$method" --imbalance 200 --seed "$first_seed"
done
for method in $TODAY; do
  run classification.train cifar100-lt-short --method "$method" --imbalance 100 --seed "$first_seed"
done

for classifier in $CLASSIFIERS; do
  for method in $STAGE2; do
    for imbalance in $IMBALANCES; do
      run classification.train "cifar100-lt-short-$classifier" --stage1 ce --method "$method" \
        --imbalance "$imbalance" --seed "$first_seed" \
        ${STAGE1_EPOCHS:+--stage1-epochs "$STAGE1_EPOCHS"}
    done
  done
done
finish
