#!/usr/bin/env bash
# Experiment: mnist_recipe - which reading of MNIST-LT gives the paper's baselines
# Paper: Table 1 (MNIST-LT: CE, focal, CFS, CB); docs/mnist-readings.md has the rule that decides
# Data: none to fetch (data_prep/mnist_4_9.npz is in the repository)
# Cost: 120 runs a seed of about 35 s alone, 50 s where two share a machine: 50 minutes on 2 cores (all five seeds: 4 hours)
# Smoke: SEEDS=0 IMBALANCES=99 READINGS="0.01 +standardise +torch" METHODS=ce
SEEDS=${SEEDS:-"0 1 2 3 4"}
IMBALANCES=${IMBALANCES:-"99 199"}
READINGS=${READINGS:-.} # only the lines of the table that this extended regular expression matches
METHODS=${METHODS:-.}   # likewise of the methods, such as 'ce' or 'cb weight-sum'
[[ $- == *p* ]] || exec "$BASH" -p "$0" "$@" # no function of the user's shell; experiment.sh
source "$(dirname "$(realpath "${BASH_SOURCE[0]}")")/../../common/launching/experiment.sh"
parse_arguments "$@"

# learning rate  input scaling  initialisation
readings() {
  grep -E -- "$READINGS" <<TABLE
  0.001          raw            torch-default
  0.001          raw            xavier-uniform
  0.001          standardise    torch-default
  0.001          standardise    xavier-uniform
  0.003          raw            torch-default
  0.003          raw            xavier-uniform
  0.003          standardise    torch-default
  0.003          standardise    xavier-uniform
  0.01           raw            torch-default
  0.01           raw            xavier-uniform
  0.01           standardise    torch-default
  0.01           standardise    xavier-uniform
TABLE
}

# method  loss reduction: of these methods only CB weights its samples
methods() {
  grep -E -- "^ *($METHODS)" <<TABLE
  ce      batch-size
  focal   batch-size
  cfs     batch-size
  cb      batch-size
  cb      weight-sum
TABLE
}

for seed in $SEEDS; do
  while read -r rate scaling initialisation; do
    while read -r method reduction; do
      for imbalance in $IMBALANCES; do
        run classification.train mnist-lt --group mnist-lt-recipe --method "$method" \
          --imbalance "$imbalance" --seed "$seed" --learning-rate "$rate" \
          --input-scaling "$scaling" --initialisation "$initialisation" \
          --loss-reduction "$reduction"
      done
    done < <(methods)
  done < <(readings)
done
finish
