#!/usr/bin/env bash
# Experiment: digit_images - rendered digits in ten looks, long-tailed, as files; small images, ResNet-10
# Paper: Sec. 4.1 on rendered images: not the paper's experiment
# Data: rendered before the first run (2 MB); its squares are kept in OUT/image-cache (13 MB)
# Check: data_prep.digit_images render
# Cost: 8 runs a seed of 70 to 84 s, OLTR with its first stage 160 s: 12 min on one AMD EPYC core
# Smoke: SEEDS=0 METHODS="cdb-w-ce oltr" STAGE1_EPOCHS=2
SEEDS=${SEEDS:-0}
METHODS=${METHODS:-"ce focal eql class-aware cdb-s cdb-w-fl cdb-w-ce oltr"}
TAUS=${TAUS:-sigmoid}            # of the methods that have a tau
STAGE1_EPOCHS=${STAGE1_EPOCHS:-} # of OLTR, if not the recipe's; -- --epochs N alone leaves it
WORKERS=${WORKERS:-0}            # to read images ahead
CACHE=${CACHE:-}                 # folder for the squares, if not OUT/image-cache
[[ $- == *p* ]] || exec "$BASH" -p "$0" "$@" # no function of the user's shell; experiment.sh
source "$(dirname "$(realpath "${BASH_SOURCE[0]}")")/../../common/launching/experiment.sh"
parse_arguments "$@"
cache=$OUT/image-cache
[[ -z $CACHE ]] || cache=$(absolute "$CACHE")

train() { run classification.train "$@" --workers "$WORKERS" --cache "$cache"; }

for seed in $SEEDS; do
  for method in $METHODS; do
    case $method in
      cdb-*)
        for tau in $TAUS; do
          train digit-images --method "$method" --tau "$tau" --seed "$seed"
        done
        ;;
      oltr)
        train digit-images-oltr --seed "$seed" ${STAGE1_EPOCHS:+--stage1-epochs "$STAGE1_EPOCHS"}
        ;;
      eql) train digit-images --method eql --eql-threshold 0.05 --seed "$seed" ;; # the few-shot classes
      *) train digit-images --method "$method" --seed "$seed" ;;
    esac
  done
done
finish
