#!/usr/bin/env bash
# Experiment: motion_digits - rendered clips of moving digits with EGTEA's class profile, small 3D-ResNeXt
# Paper: Sec. 4.3 on rendered clips: not the paper's experiment
# Data: rendered before the first run (15 MB); its frames are kept in OUT/frame-cache (300 MB)
# Check: data_prep.motion_digits render
# Cost: 3 runs a seed, 2.6 min of processor time each, and one of 0.5 min: a seed takes 5 min on 2 cores
# Smoke: SEEDS=0 METHODS=cdb-w-ce ONE_FRAME=
SEEDS=${SEEDS:-0}
METHODS=${METHODS:-"ce cdb-s cdb-w-ce"}
TAUS=${TAUS:-sigmoid}     # of the methods that have a tau
ONE_FRAME=${ONE_FRAME-ce} # methods that see one frame of each clip: no more than chance is to be had
[[ $- == *p* ]] || exec "$BASH" -p "$0" "$@" # no function of the user's shell; experiment.sh
source "$(dirname "$(realpath "${BASH_SOURCE[0]}")")/../../common/launching/experiment.sh"
parse_arguments "$@"

train() { run video.train motion-digits --method "$@" --cache "$OUT/frame-cache"; }

for seed in $SEEDS; do
  for method in $METHODS; do
    case $method in
      cdb-*) for tau in $TAUS; do train "$method" --tau "$tau" --seed "$seed"; done ;;
      *) train "$method" --seed "$seed" ;;
    esac
  done
done
for method in $ONE_FRAME; do
  train "$method" --frames 1 --group motion-digits-one-frame --seed "${SEEDS%% *}"
done
finish
