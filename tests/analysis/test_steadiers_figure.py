"""The figure of laws and steadiers."""

import numpy as np
import pytest

from analysis.figures import steadiers
from analysis.figures.style import styled
from analysis.records import to_frame


@pytest.fixture
def frame(make_record):
    """Cross-entropy with 10 and 12 % on two seeds, and a steadied run of the second."""

    def run(method, variant, error, seed=0, condition="99", group="mnist-lt"):
        return make_record(
            method, variant, condition, seed, group=group, difficulty_set_accuracy=1 - error / 100
        )

    return to_frame(
        [
            run("ce", "", 10.0), run("ce", "", 12.0, 1),
            run("cdb-s", "tau=sigmoid", 11.0, 1),
            run("cdb-s", "tau=2.0 average=0.9", 5.0, 1),
            run("cdb-s", "tau=0.5", 1.0), run("cdb-w-ce", "tau=2.0", 50.0, condition="199"),
        ]
    )  # fmt: skip


def test_a_cell_is_the_gain_over_cross_entropy_on_the_same_seeds(frame):
    # Nothing is steadied at imbalance 199.
    (setup,) = steadiers.setups(frame)
    assert (setup.name, setup.condition) == ("MNIST-LT", "99")
    gains = setup.mean_gains("cdb-s")
    # Eq. 10 without a steadier, and tau 2 with an average: 11 and 5 minus seed 1's 12.
    assert gains[0, 0] == pytest.approx(-1.0)
    assert gains[4, 1] == pytest.approx(-7.0)
    assert np.isnan(gains).sum() == gains.size - 2


def test_it_is_drawn_where_something_is_steadied(frame):
    assert steadiers.lacks(frame[frame["variant"].str.find("average") < 0])
    assert steadiers.lacks(to_frame([]))
    weighted, sampled = styled(lambda: steadiers.draw(frame)).axes
    assert sampled.get_title() == "CDB-S, MNIST-LT, imbalance 99"
    assert [text.get_text() for text in sampled.texts] == ["−1.0", "−7.0"]
    assert not weighted.texts
