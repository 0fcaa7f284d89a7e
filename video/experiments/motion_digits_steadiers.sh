#!/usr/bin/env bash
# Experiment: motion_digits_steadiers - law of tau x steadier of the difficulty, rendered clips of moving digits
# Paper: Sec. 3.1 and 3.1.2, beyond what they have: docs/choosing-tau.md; not the paper's data
# Data: rendered before the first run (15 MB); its frames are kept in OUT/frame-cache (300 MB)
# Check: data_prep.motion_digits render
# Cost: 52 runs of 2.6 min of processor time each: 70 min on 2 cores
# Smoke: SEEDS=0 TAUS=1 STEADIERS=both METHODS=cdb-w-ce OTHERS=
SEEDS=${SEEDS:-0} # the first round; the second has three
METHODS=${METHODS:-"cdb-w-ce cdb-s"}
TAUS=${TAUS:-"sigmoid sigmoid-accv sigmoid-code 1 2"}
STEADIERS=${STEADIERS:-"none average prior both deferred"}
OTHERS=${OTHERS-"ce balanced-softmax"} # beside them
DEFER=${DEFER:-18} # the epoch from which on deferred weights are in force: the first fall of the rate
[[ $- == *p* ]] || exec "$BASH" -p "$0" "$@" # no function of the user's shell; experiment.sh
source "$(dirname "$(realpath "${BASH_SOURCE[0]}")")/../../common/launching/experiment.sh"
parse_arguments "$@"
train() {
  run video.train motion-digits --group motion-digits-steadiers "$@" --cache "$OUT/frame-cache"
}

run_steadied
finish
