"""EGTEA verbs: video-action classification."""

import common as common  # before torch: see common/__init__.py
