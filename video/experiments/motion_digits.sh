#!/usr/bin/env bash
# Experiment: motion_digits - rendered clips of moving digits with EGTEA's class profile, small 3D-ResNeXt
# Paper: Sec. 4.3 on rendered clips: not the paper's experiment
# Data: rendered before the first run (12 MB); its frames are kept in OUT/frame-cache (300 MB)
# Check: data_prep.motion_digits render
# Cost: 9 runs of @SECONDS@ s on one AMD EPYC core
# Smoke: SEEDS=0 METHODS=cdb-w-ce
SEEDS=${SEEDS:-"0 1 2"}
METHODS=${METHODS:-"ce cdb-s cdb-w-ce"}
source "$(dirname "${BASH_SOURCE[0]}")/../../common/experiment.sh"
parse_arguments "$@"

for seed in $SEEDS; do
  for method in $METHODS; do
    run video.train motion-digits --method "$method" --seed "$seed" --cache "$OUT/frame-cache"
  done
done
finish
