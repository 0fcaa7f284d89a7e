#!/usr/bin/env bash
# Experiment: cifar100_today - baselines of today beside the paper's methods, CIFAR100-LT at three weight decays
# Paper: Sec. 4.1, beyond what it has: docs/cifar100.md
# Data: CIFAR-100: see data_prep/README.md
# Check: data_prep.cifar100 check
# Cost: 45 runs a seed; measured: one of ce 1 min on an H100, 130 min on one AMD EPYC core with bfloat16 instructions, with 500 images at the head 110 min on an Intel Xeon one; not measured: AutoAugment
# Smoke: SEEDS=0 DECAYS=5e-4 METHODS=mixup TAUS= BRIDGE= AUGMENTED=ce
SEEDS=${SEEDS:-"0 1 2"}
DECAYS=${DECAYS:-"5e-4 2e-4 1e-4"} # the most wanted first
# logit-adjustment with its usual factor has the numbers of balanced-softmax to the bit.
METHODS=${METHODS-"ce balanced-softmax logit-adjustment-post-hoc tau-normalisation ldam-drw mixup"}
TAUS=${TAUS-"sigmoid sigmoid-accv"} # of CDB: Eq. 10, and the authors' ImageNet-LT code
AUGMENTATIONS=${AUGMENTATIONS-autoaugment-cutout} # beside crops and mirroring
AUGMENTED=${AUGMENTED-"ce balanced-softmax cdb-w-ce"} # methods with these, at weight decay 5e-4
BRIDGE=${BRIDGE-"5e-4 2e-4"} # weight decays of the runs with 500 images at the head and none held out
[[ $- == *p* ]] || exec "$BASH" -p "$0" "$@" # no function of the user's shell; experiment.sh
source "$(dirname "$(realpath "${BASH_SOURCE[0]}")")/../../common/launching/experiment.sh"
parse_arguments "$@"

# train DECAY OPTION...: 1e-4 is the written recipe's, whose runs are those of the tables.
train() {
  local decay=$1
  shift
  if [[ $decay == 1e-4 ]]; then
    run classification.train cifar100-lt "$@"
  else
    run classification.train cifar100-lt --group cifar100-lt-recipe --weight-decay "$decay" "$@"
  fi
}

for seed in $SEEDS; do
  for decay in $DECAYS; do
    for method in $METHODS; do
      train "$decay" --method "$method" --seed "$seed"
    done
    for tau in $TAUS; do
      for method in cdb-w-ce cdb-s; do
        train "$decay" --method "$method" --tau "$tau" --seed "$seed"
      done
    done
  done
  for augmentation in $AUGMENTATIONS; do
    for method in $AUGMENTED; do
      tau=()
      [[ $method != cdb-* ]] || tau=(--tau sigmoid-accv) # the one whose runs at 5e-4 are recorded
      run classification.train cifar100-lt --group cifar100-lt-recipe --weight-decay 5e-4 \
        --augmentation "$augmentation" --method "$method" "${tau[@]}" --seed "$seed"
    done
  done
  # A group of its own: another split, whose numbers stand beside those of other papers alone.
  for decay in $BRIDGE; do
    for method in $METHODS; do
      run classification.train cifar100-lt --group cifar100-lt-head-500 --head-size 500 \
        --weight-decay "$decay" --method "$method" --seed "$seed"
    done
  done
done
finish
