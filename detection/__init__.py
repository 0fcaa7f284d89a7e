"""Object detection and instance segmentation: LVIS v0.5 (Sec. 4.2)."""

import common.training.drawing  # noqa: F401  (before matplotlib: it chooses the backend)
from common import training as training  # before torch: see common/training/__init__.py
