"""Object detection and instance segmentation: LVIS v0.5 (Sec. 4.2)."""

import common as common  # Before torch: turns off OpenMP spinning, see common/__init__.py.
