"""The figure of two weight decays: every seed a dot, the paper's totals as lines."""

import pytest

from analysis.figures import shots_by_decay
from analysis.figures.style import styled
from analysis.records import to_frame


@pytest.fixture
def run(make_cifar):
    def make(decay, seed=0, **fields):
        config = {"weight_decay": decay, "milestones": [8, 9], "tau": None}
        group = "cifar100-lt" if decay == 0.0001 else "cifar100-lt-recipe"
        name = f"ce_imbalance-100_weight-decay-{decay}_seed-{seed}"
        return make_cifar("ce", seed=seed, config=config, group=group, run=name, **fields)

    return make


def test_each_seed_is_a_dot_and_the_papers_error_a_line(run):
    records = [run(0.0001, seed, error=60.0 + seed) for seed in range(3)] + [run(0.0005)]
    figure = styled(lambda: shots_by_decay.draw(to_frame(records)))
    printed, code = figure.axes
    everything = [line for line in printed.lines if len(line.get_ydata()) == 3]
    assert [list(line.get_ydata()) for line in everything][-1] == [40.0, 39.0, 38.0]
    heights = {round(float(y), 2) for c in printed.collections for (_, y) in c.get_segments()[0]}
    # Table 1's CE, LDAM-DRW and CDB-W-CE: 61.79, 57.96 and 57.41 % error.
    assert {38.21, 42.04, 42.59} <= heights
    assert "not run: LDAM-DRW" in "".join(text.get_text() for text in code.texts)


def test_without_runs_of_both_decays_there_is_no_figure(run):
    assert shots_by_decay.lacks(to_frame([run(0.0001)]))
    assert not shots_by_decay.lacks(to_frame([run(0.0001), run(0.0005)]))
