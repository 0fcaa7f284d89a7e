#!/usr/bin/env bash
# Experiment: digit_scenes - rendered scenes of digits as 40 categories with LVIS's tail, small Mask R-CNN
# Paper: Sec. 4.2 on rendered scenes: not the paper's experiment
# Data: rendered before the first run (36 MB)
# Check: data_prep.digit_scenes render
# Cost: 4 runs a seed, 4 to 5 min of processor time each with masks: about 10 min on 2 free AMD EPYC cores
# Smoke: SEEDS=0 METHODS=ce STAGE2=cdb-w-ce/ce STAGE1_EPOCHS=2 TASK=box
SEEDS=${SEEDS:-0}
METHODS=${METHODS-"ce cdb-w-ce rfs"}
# Second stages: the method, and that of the detector it starts from.
STAGE2=${STAGE2-"cdb-w-ce/ce"}
STAGE1_EPOCHS=${STAGE1_EPOCHS:-} # if not the recipe's; -- --epochs N alone leaves it
TASK=${TASK:-mask}
RFS_THRESHOLD=${RFS_THRESHOLD:-0.08} # 57 of 701 images, as LVIS's 0.001 is 57 of its 56,740
[[ $- == *p* ]] || exec "$BASH" -p "$0" "$@" # no function of the user's shell; experiment.sh
source "$(dirname "$(realpath "${BASH_SOURCE[0]}")")/../../common/launching/experiment.sh"
parse_arguments "$@"

for seed in $SEEDS; do
  for method in $METHODS; do
    options=()
    [[ $method != rfs ]] || options=(--rfs-threshold "$RFS_THRESHOLD")
    run detection.train digit-scenes --task "$TASK" --method "$method" --seed "$seed" "${options[@]}"
  done
  for stages in $STAGE2; do
    run detection.train digit-scenes-clc --task "$TASK" --method "${stages%%/*}" \
      --stage1 "${stages##*/}" --seed "$seed" ${STAGE1_EPOCHS:+--stage1-epochs "$STAGE1_EPOCHS"}
  done
done
finish
