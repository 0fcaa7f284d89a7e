"""The paper's claims on ImageNet-LT that its Fig. 1 makes (C11)."""

from functools import partial
from typing import Final

from analysis.claims.errors import Test
from analysis.claims.shots import not_monotone

TESTS: Final[dict[str, tuple[Test, ...]]] = {"C11": (partial(not_monotone, "256"),)}
