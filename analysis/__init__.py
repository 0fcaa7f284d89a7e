"""From result records to tables, verdicts on the paper's claims, figures and one HTML report.

Reads recorded results only: it never trains and knows no task's code.
"""

import common.training.drawing  # noqa: F401  (before matplotlib: it chooses the backend)
from common import training as training  # before torch: see common/training/__init__.py
