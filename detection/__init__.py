"""Object detection and instance segmentation: LVIS v0.5 (Sec. 4.2)."""

import common as common  # before torch: see common/__init__.py
import common.drawing  # noqa: F401  (before matplotlib: it chooses the backend)
