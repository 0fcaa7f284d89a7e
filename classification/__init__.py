"""Image classification: MNIST-LT (Sec. 4.1)."""

from common import training as training  # before torch: see common/training/__init__.py
