"""Many runs: one after the other or side by side, here or under Slurm; and what became of them."""

from common import training as training  # what turns libgomp's spinning off passes on to the runs
