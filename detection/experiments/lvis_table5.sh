#!/usr/bin/env bash
# Experiment: lvis_table5 - object detection on LVIS v0.5, Faster R-CNN R50-FPN, and its second stages
# Paper: Table 5 (LVIS); claims L1, L2, L3
# Data: LVIS v0.5, COCO 2017 and a detector trained on COCO: see data_prep/README.md
# Check: data_prep.lvis check
# Cost: 11 runs a seed; not measured (12 epochs of 57,000 images, made for 4 GPUs)
# Smoke: SEEDS=0 METHODS=ce STAGE2= NETWORK="--backbone small --start random --min-size 128 --max-size 160"
SEEDS=${SEEDS:-"0 1 2"}
METHODS=${METHODS:-"ce cdb-w-ce rfs eql"}
# Second stages: the method, and that of the detector it starts from.
STAGE2=${STAGE2-"focal/ce lrw/ce lrw/cdb-w-ce bags/ce bags/cdb-w-ce cdb-w-ce/ce cdb-w-ce/cdb-w-ce"}
GPUS=${GPUS:-1}      # of each run; the paper's had 4
NETWORK=${NETWORK:-} # for example "--weights fasterrcnn_resnet50_fpn_coco-258fb6c6.pth"
[[ $- == *p* ]] || exec "$BASH" -p "$0" "$@" # no function of the user's shell; experiment.sh
source "$(dirname "$(realpath "${BASH_SOURCE[0]}")")/../../common/launching/experiment.sh"
parse_arguments "$@"

read -ra network <<<"$NETWORK"
for seed in $SEEDS; do
  for method in $METHODS; do
    run detection.train lvis --task box --method "$method" --seed "$seed" "${network[@]}"
  done
  for stages in $STAGE2; do
    run detection.train lvis-clc --task box --method "${stages%/*}" --stage1 "${stages##*/}" \
      --seed "$seed" "${network[@]}"
  done
done
finish
