"""Cross-entropy, the baseline of Tables 5 and 6."""

from detection.methods.base import DetectionMethod


class CrossEntropy(DetectionMethod):
    """Cross-entropy (Eq. 11), every image once an epoch: a method as it stands."""
