"""EGTEA verbs: video-action classification."""

from common import training as training  # before torch: see common/training/__init__.py
