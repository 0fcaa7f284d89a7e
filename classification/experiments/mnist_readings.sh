#!/usr/bin/env bash
# Experiment: mnist_readings - MNIST-LT in the readings of what the paper leaves open
# Paper: Sec. 4.1.2 (MNIST-LT); docs/mnist-readings.md
# Data: none to fetch (data_prep/mnist_4_9.npz is in the repository)
# Cost: 96 runs of about 35 s (lenet-ren 110 s) on one core: 30 to 40 minutes on 2 cores
# Smoke: SEEDS=0 IMBALANCES=99 READINGS="lenet-ren|cdb-w-ce"
SEEDS=${SEEDS:-"0 1 2"}
IMBALANCES=${IMBALANCES:-"99 199"}
READINGS=${READINGS:-.} # only the lines of the table that this extended regular expression matches
[[ $- == *p* ]] || exec "$BASH" -p "$0" "$@" # no function of the user's shell; experiment.sh
source "$(dirname "$(realpath "${BASH_SOURCE[0]}")")/../../common/launching/experiment.sh"
parse_arguments "$@"

# method    architecture  initialisation    input scaling  loss reduction
readings() {
  grep -E -- "$READINGS" <<TABLE
  ce        lenet5        torch-default     raw            batch-size
  ce        lenet5        xavier-uniform    raw            batch-size
  ce        lenet5        torch-default     unit           batch-size
  ce        lenet5        torch-default     standardise    batch-size
  ce        lenet5        xavier-uniform    unit           batch-size
  ce        lenet5        xavier-uniform    standardise    batch-size
  ce        lenet5        truncated-normal  unit           batch-size
  ce        lenet5        truncated-normal  standardise    batch-size
  ce        lenet5-1998   torch-default     standardise    batch-size
  ce        lenet5-1998   xavier-uniform    standardise    batch-size
  ce        lenet-ren     truncated-normal  unit           batch-size
  ce        lenet5        torch-default     unit           sum
  ce        lenet5        torch-default     standardise    sum
  ce        lenet5        xavier-uniform    unit           sum
  ce        lenet5        xavier-uniform    standardise    sum
  cdb-w-ce  lenet5        torch-default     unit           sum
TABLE
}

while read -r method architecture initialisation scaling reduction; do
  for imbalance in $IMBALANCES; do
    for seed in $SEEDS; do
      run classification.train mnist-lt --group mnist-lt-readings --method "$method" \
        --imbalance "$imbalance" --seed "$seed" --learning-rate 0.001 \
        --architecture "$architecture" --initialisation "$initialisation" \
        --input-scaling "$scaling" --loss-reduction "$reduction"
    done
  done
done < <(readings)
finish
