#!/usr/bin/env bash
# Experiment: imagenet_table1 - all methods on ImageNet-LT, ResNet-10, imbalance 256
# Paper: Table 1 (ImageNet-LT), and Figure 1 by its CE runs; claims C11, I1, I2
# Data: ImageNet-LT's lists and ILSVRC 2012's images: see data_prep/README.md
# Check: data_prep.imagenet_lt check
# Cost: 24 runs of 100 epochs, OLTR of 30 and 60; not measured (made for a GPU with CACHE on a fast disk)
# Smoke: SEEDS=0 METHODS=eql SIZE="--stored-side 36 --crop 32"
SEEDS=${SEEDS:-"0 1 2"}
METHODS=${METHODS:-"ce focal eql oltr class-aware cdb-s cdb-w-fl cdb-w-ce"}
STAGE1_EPOCHS=${STAGE1_EPOCHS:-} # of OLTR, if not the recipe's; -- --epochs N alone leaves it
GPUS=${GPUS:-1}  # of each run
CACHE=${CACHE:-} # folder for squares of 256 pixels, 37 GB; none: files are decoded every epoch
SIZE=${SIZE:-}   # for example "--stored-side 72 --crop 64"
[[ $- == *p* ]] || exec "$BASH" -p "$0" "$@" # no function of the user's shell; experiment.sh
source "$(dirname "$(realpath "${BASH_SOURCE[0]}")")/../../common/launching/experiment.sh"
parse_arguments "$@"
WORKERS=${WORKERS:-$((CORES / GPUS))} # of each process, to read images ahead

read -ra size <<<"$SIZE"
for method in $METHODS; do
  recipe=(imagenet-lt)
  if [[ $method == oltr ]]; then
    recipe=(imagenet-lt-oltr ${STAGE1_EPOCHS:+--stage1-epochs "$STAGE1_EPOCHS"})
  fi
  for seed in $SEEDS; do
    run classification.train "${recipe[@]}" --method "$method" --seed "$seed" --workers "$WORKERS" \
      "${size[@]}" ${CACHE:+--cache "$(absolute "$CACHE")"}
  done
done
finish
