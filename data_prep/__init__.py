"""One module per dataset: verify the source, build the split, print the class counts."""

import common as common  # before torch: see common/__init__.py
