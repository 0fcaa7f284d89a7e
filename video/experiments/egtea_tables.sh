#!/usr/bin/env bash
# Experiment: egtea_tables - all methods on EGTEA verbs, 3D-ResNeXt-101 pretrained on Kinetics
# Paper: Table 7, Table 8 (EGTEA); claims E1, E2
# Data: EGTEA Gaze+ trimmed clips and resnext-101-kinetics.pth: see data_prep/README.md
# Check: data_prep.egtea check
# Cost: 18 runs; not measured (58 GFLOP a clip and pass: made for several GPUs)
# Smoke: SEEDS=0 METHODS=ce NETWORK="--model small-resnext --start random"
SEEDS=${SEEDS:-"0 1 2"}
METHODS=${METHODS:-"ce focal cb cfs cdb-s cdb-w-ce"}
GPUS=${GPUS:-1}       # of each run; the paper's had 8
CACHE=${CACHE:-}      # folder for decoded frames, about 140 GB; none: videos are decoded every epoch
NETWORK=${NETWORK:-}  # for example "--model small-resnext --start random"
[[ $- == *p* ]] || exec "$BASH" -p "$0" "$@" # no function of the user's shell; experiment.sh
source "$(dirname "$(realpath "${BASH_SOURCE[0]}")")/../../common/launching/experiment.sh"
parse_arguments "$@"
WORKERS=${WORKERS:-$((CORES / GPUS))} # of each process, to read clips ahead

read -ra network <<<"$NETWORK"
for method in $METHODS; do
  for seed in $SEEDS; do
    run video.train egtea-verbs --method "$method" --seed "$seed" --workers "$WORKERS" \
      "${network[@]}" ${CACHE:+--cache "$(absolute "$CACHE")"}
  done
done
finish
