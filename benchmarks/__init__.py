"""Speed, ours beside a reference, measured in one run."""

import common as common  # before torch: see common/__init__.py
import common.drawing  # noqa: F401  (before matplotlib: it chooses the backend)
