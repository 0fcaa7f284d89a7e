"""Networks of the video experiments."""

from video.models.checkpoint import load_kinetics
from video.models.resnext3d import ResNeXt3d, make_resnext101, make_small_resnext

__all__ = ["ResNeXt3d", "load_kinetics", "make_resnext101", "make_small_resnext"]
