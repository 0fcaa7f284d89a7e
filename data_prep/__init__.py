"""One module per dataset: verify the source, build the split, print the class counts."""

from common import training as training  # before torch: see common/training/__init__.py
