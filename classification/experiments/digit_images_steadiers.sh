#!/usr/bin/env bash
# Experiment: digit_images_steadiers - law of tau x steadier of the difficulty, rendered digits as files
# Paper: Sec. 3.1 and 3.1.2, beyond what they have: docs/choosing-tau.md; not the paper's data
# Data: rendered before the first run (2 MB); its squares are kept in OUT/image-cache (13 MB)
# Check: data_prep.digit_images render
# Cost: 52 runs of 70 to 84 s: 65 min on one AMD EPYC core, as long on both of an Intel Xeon, where two at once take 150 s each
# Smoke: SEEDS=0 TAUS=1 STEADIERS=both METHODS=cdb-w-ce OTHERS=
SEEDS=${SEEDS:-0} # the first round; the second has three
METHODS=${METHODS:-"cdb-w-ce cdb-s"}
TAUS=${TAUS:-"sigmoid sigmoid-accv sigmoid-code 1 2"}
STEADIERS=${STEADIERS:-"none average prior both deferred"}
OTHERS=${OTHERS-"ce balanced-softmax"} # beside them
DEFER=${DEFER:-20} # the epoch from which on deferred weights are in force: half of them
[[ $- == *p* ]] || exec "$BASH" -p "$0" "$@" # no function of the user's shell; experiment.sh
source "$(dirname "$(realpath "${BASH_SOURCE[0]}")")/../../common/launching/experiment.sh"
parse_arguments "$@"
train() {
  run classification.train digit-images --group digit-images-steadiers "$@" --cache "$OUT/image-cache"
}

run_steadied
finish
