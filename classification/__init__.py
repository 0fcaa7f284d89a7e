"""Image classification: MNIST-LT (Sec. 4.1)."""

import common.training.drawing  # noqa: F401  (before matplotlib: it chooses the backend)
from common import training as training  # before torch: see common/training/__init__.py
