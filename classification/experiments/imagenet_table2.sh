#!/usr/bin/env bash
# Experiment: imagenet_table2 - the effect of tau on CDB-W-CE, ImageNet-LT, ResNet-10
# Paper: Table 2 (ImageNet-LT), and the two other sigmoid versions
# Data: ImageNet-LT's lists and ILSVRC 2012's images: see data_prep/README.md
# Check: data_prep.imagenet_lt check
# Cost: 33 runs of 100 epochs; not measured (made for a GPU with CACHE on a fast disk)
# Smoke: SEEDS=0 TAUS=sigmoid SIZE="--stored-side 36 --crop 32"
SEEDS=${SEEDS:-"0 1 2"}
DYNAMIC="linear polynomial logarithmic sigmoid sigmoid-accv sigmoid-code"
TAUS=${TAUS:-"0.5 1.0 1.5 2.0 5.0 $DYNAMIC"}
GPUS=${GPUS:-1}  # of each run
CACHE=${CACHE:-} # folder for squares of 256 pixels, 37 GB; none: files are decoded every epoch
SIZE=${SIZE:-}   # for example "--stored-side 72 --crop 64"
[[ $- == *p* ]] || exec "$BASH" -p "$0" "$@" # no function of the user's shell; experiment.sh
source "$(dirname "$(realpath "${BASH_SOURCE[0]}")")/../../common/launching/experiment.sh"
parse_arguments "$@"
WORKERS=${WORKERS:-$((CORES / GPUS))} # of each process, to read images ahead

read -ra size <<<"$SIZE"
for tau in $TAUS; do
  for seed in $SEEDS; do
    run classification.train imagenet-lt --method cdb-w-ce --tau "$tau" --seed "$seed" \
      --workers "$WORKERS" "${size[@]}" ${CACHE:+--cache "$(absolute "$CACHE")"}
  done
done
finish
