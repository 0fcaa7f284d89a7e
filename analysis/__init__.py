"""From result records to tables, verdicts on the paper's claims, figures and one HTML report.

Reads recorded results only: it never trains and knows no task's code.
"""

import common as common  # before torch: see common/__init__.py
import common.drawing  # noqa: F401  (before matplotlib: it chooses the backend)
