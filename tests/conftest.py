"""Two test processes run side by side: threads of their own would only slow each other."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import common.training  # noqa: F401  (before torch)
