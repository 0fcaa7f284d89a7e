#!/usr/bin/env bash
# Experiment: photo_crops - pictures of one's own: crops of photographs, a pretrained network fine-tuned
# Paper: Sec. 3.1 on real pictures: docs/your-own-images.md; not the paper's experiment
# Data: photographs with boxes: see data_prep/README.md; cut before the first run
# Check: data_prep.photo_crops prepare
# Cost: 4 runs a seed of 105 to 125 s on one Intel Xeon core: 13 min for three seeds on two
# Smoke: SEEDS=0 METHODS=cdb-w-ce
SEEDS=${SEEDS:-"0 1 2"} # each has a split of its own, 0 to 9
METHODS=${METHODS:-"ce balanced-softmax cdb-s cdb-w-ce"}
TAUS=${TAUS:-sigmoid-code} # of the methods that have a tau
[[ $- == *p* ]] || exec "$BASH" -p "$0" "$@" # no function of the user's shell; experiment.sh
source "$(dirname "$(realpath "${BASH_SOURCE[0]}")")/../../common/launching/experiment.sh"
parse_arguments "$@"
crops=${DATA:-${CDB_PHOTO_CROPS:-data/photo-crops}}
# A seed's lists are its --data, in place of the folder that holds them all.
[[ -z $DATA ]] || EXTRA=("${EXTRA[@]:0:${#EXTRA[@]}-2}")

train() {
  run classification.train image-folder --group photo-crops "$@" --seed "$seed" \
    --data "$crops/split-$seed" --cache "$crops/split-$seed/squares" \
    --stored-side 112 --crop 96 --start pretrained \
    --network classification.models.efficientnet_lite:efficientnet_lite0 \
    --optimizer adamw --learning-rate 0.001 --epochs 12 --batch-size 32 --precision float32
}

for seed in $SEEDS; do
  for method in $METHODS; do
    case $method in
      cdb-*)
        for tau in $TAUS; do
          train --method "$method" --tau "$tau"
        done
        ;;
      *) train --method "$method" ;;
    esac
  done
done
finish
