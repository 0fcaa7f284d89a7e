"""Image classification: MNIST-LT (Sec. 4.1)."""

import common as common  # before torch: see common/__init__.py
