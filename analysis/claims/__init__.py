"""The paper's claims, decided from the records.

One function per type of test (``errors``, ``taus``, ``shots``); one module per data set says which
claim is decided by which, and ``judge`` makes the tables. Every difference is paired by seed and
data split and comes with its 95 % t-interval. A claim over several conditions holds when it holds
under each, and does not hold as soon as it fails under one. Fewer than ``MIN_SEEDS`` pairs decide
nothing. The intervals are not corrected for the number of comparisons.
"""

from analysis.claims.judge import DEMOS as DEMOS
from analysis.claims.judge import claims_grid as claims_grid
from analysis.claims.judge import count_verdicts as count_verdicts
from analysis.claims.judge import demo_claims_grid as demo_claims_grid
from analysis.claims.judge import demo_claims_makers as demo_claims_makers
from analysis.claims.judge import judge as judge
from analysis.claims.judge import short_claims_grid as short_claims_grid
