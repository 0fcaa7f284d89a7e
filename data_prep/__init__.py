"""One module per dataset: verify the source, build the split, print the class counts."""

import common as common  # Before torch: turns off OpenMP spinning, see common/__init__.py.
