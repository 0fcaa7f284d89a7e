"""Speed, ours beside a reference, measured in one run."""

import common  # noqa: F401  (before torch: see common/__init__.py)
