"""Image classification: MNIST-LT (Sec. 4.1)."""

import common  # noqa: F401  (before torch: see common/__init__.py)
