"""A run from its folder to its record, for any task.

Imported before torch, this package turns off libgomp's spin-waiting: a waiting OpenMP thread that
spins takes the core from the run beside it and makes both 4-8 times slower. It must be set before
torch loads libgomp, so every package imports ``common.training`` first, in its ``__init__``.
"""

import os

os.environ.setdefault("GOMP_SPINCOUNT", "0")
