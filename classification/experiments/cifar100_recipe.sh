#!/usr/bin/env bash
# Experiment: cifar100_recipe - which recipe gives the paper's rows: weight decay, tau, the sampler's unit, CIFAR100-LT
# Paper: Sec. 4.1.2, what it leaves open or prints otherwise than its code; docs/cifar100.md
# Data: CIFAR-100: see data_prep/README.md
# Check: data_prep.cifar100 check
# Cost: 121 runs; measured: one of 200 epochs 1 min on an H100, 130 min on one AMD EPYC core with bfloat16 instructions, a second stage 5 min
# Smoke: SEEDS=0 ROWS="^code +cifar100-lt-code +all +--method ce"
SEEDS=${SEEDS:-"0 1 2"}
ROWS=${ROWS:-.} # only the lines of the table that this extended regular expression matches
[[ $- == *p* ]] || exec "$BASH" -p "$0" "$@" # no function of the user's shell; experiment.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../common/launching/experiment.sh"
parse_arguments "$@"

# The most wanted first; docs/cifar100.md says what each decides, and what was expected before it ran.
# row  recipe           seeds  options
rows() {
  sed "s/^ *//" <<TABLE | grep -E -- "$ROWS"
  1    cifar100-lt      all  --method cdb-w-ce --tau sigmoid-code --weight-decay 5e-4
  2    cifar100-lt      all  --method cdb-s --tau sigmoid-accv --sampler-unit image --weight-decay 5e-4
  3    cifar100-lt      all  --method cdb-s --tau sigmoid-accv --weight-decay 5e-4
  4    cifar100-lt      all  --method ce --weight-decay 5e-4
  4    cifar100-lt      all  --method cdb-w-ce --tau sigmoid-accv --weight-decay 5e-4
  s    cifar100-lt-crt  all  --stage1 ce --method class-aware --weight-decay 5e-4
  s    cifar100-lt-crt  all  --stage1 ce --method cdb-w-ce --tau sigmoid-accv --weight-decay 5e-4
  s    cifar100-lt-crt  all  --stage1 ce --method cdb-s --tau sigmoid-accv --weight-decay 5e-4
  s    cifar100-lt-lws  all  --stage1 ce --method class-aware --weight-decay 5e-4
  s    cifar100-lt-lws  all  --stage1 ce --method cdb-w-ce --tau sigmoid-accv --weight-decay 5e-4
  s    cifar100-lt-lws  all  --stage1 ce --method cdb-s --tau sigmoid-accv --weight-decay 5e-4
  s    cifar100-lt-crt  all  --stage1 cdb-w-ce --method class-aware --tau sigmoid-accv --weight-decay 5e-4
  s    cifar100-lt-crt  all  --stage1 cdb-w-ce --method cdb-w-ce --tau sigmoid-accv --weight-decay 5e-4
  s    cifar100-lt-crt  all  --stage1 cdb-w-ce --method cdb-s --tau sigmoid-accv --weight-decay 5e-4
  s    cifar100-lt-lws  all  --stage1 cdb-w-ce --method class-aware --tau sigmoid-accv --weight-decay 5e-4
  s    cifar100-lt-lws  all  --stage1 cdb-w-ce --method cdb-w-ce --tau sigmoid-accv --weight-decay 5e-4
  s    cifar100-lt-lws  all  --stage1 cdb-w-ce --method cdb-s --tau sigmoid-accv --weight-decay 5e-4
  t    cifar100-lt-lws  all  --stage1 ce --method balanced-softmax --weight-decay 5e-4
  t    cifar100-lt-crt  all  --stage1 ce --method balanced-softmax --weight-decay 5e-4
  t    cifar100-lt-lws  all  --stage1 ce --method cdb-s --tau 1 --weight-decay 5e-4
  t    cifar100-lt-crt  all  --stage1 ce --method cdb-s --tau 1 --weight-decay 5e-4
  t    cifar100-lt-lws  all  --stage1 ce --method cdb-w-ce --tau 1 --weight-decay 5e-4
  t    cifar100-lt-lws  all  --stage1 ce --method cdb-s --tau sigmoid-accv --difficulty-average 0.9 --weight-decay 5e-4
  8    cifar100-lt      all  --method ldam-drw --weight-decay 5e-4
  5    cifar100-lt      all  --method ce --weight-decay 2e-4
  5    cifar100-lt      all  --method cdb-w-ce --tau sigmoid-accv --weight-decay 2e-4
  6    cifar100-lt      all  --method ce --weight-decay 5e-4 --epochs 240 --milestones 160 210 --warmup-epochs 0
  6    cifar100-lt      all  --method cdb-w-ce --tau sigmoid-accv --weight-decay 5e-4 --epochs 240 --milestones 160 210 --warmup-epochs 0
  code cifar100-lt-code all  --method ce
  code cifar100-lt-code all  --method cdb-w-ce --tau sigmoid-code
  7    cifar100-lt      all  --method cdb-w-ce --weight-decay 5e-4
  8    cifar100-lt      all  --method class-aware --weight-decay 5e-4
  9    cifar100-lt      all  --method focal --weight-decay 5e-4
  9    cifar100-lt      all  --method eql --weight-decay 5e-4
  9    cifar100-lt      all  --method cfs --weight-decay 5e-4
  9    cifar100-lt      all  --method cb --cb-beta 0.9 --weight-decay 5e-4
  9    cifar100-lt      all  --method cdb-w-fl --weight-decay 5e-4
  10   cifar100-lt      all  --method ce --weight-decay 1e-3
  10   cifar100-lt      all  --method cdb-w-ce --tau sigmoid-code --weight-decay 1e-3
  11   cifar100-lt      0    --method cdb-w-ce --tau 1.5 --imbalance 200 --weight-decay 5e-4 --batch-size 32 --epochs 240 --milestones 160 210 --warmup-epochs 0
  12   cifar100-lt      0    --method class-aware --weight-decay 2e-4
  12   cifar100-lt      0    --method cb --loss-reduction weight-sum --weight-decay 2e-4
  12   cifar100-lt      0    --method class-aware --precision float32
TABLE
}

for seed in $SEEDS; do
  while read -r row recipe seeds options; do
    [[ $seeds == all || $seeds == "$seed" ]] || continue
    group=cifar100-lt-recipe
    [[ $row != code ]] || group=$recipe
    # shellcheck disable=SC2086 # the options of a line are words
    run classification.train "$recipe" --group "$group" --seed "$seed" $options
  done < <(rows)
done
finish
