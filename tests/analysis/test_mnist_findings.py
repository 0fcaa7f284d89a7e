"""The sentences on MNIST-LT."""

import pytest

from analysis.mnist_findings import mnist_findings, readings_findings, swings
from analysis.records import to_frame


@pytest.fixture
def swinging(make_record):
    """A run whose tail accuracy on the difficulty set is as given, epoch by epoch."""

    def make(tail, *args, **fields):
        record = make_record(*args, epochs=len(tail), **fields)
        record["history"]["class_accuracy"] = [[1.0, accuracy] for accuracy in tail]
        return record

    return make


def test_a_swing_is_a_step_of_the_tails_accuracy_by_more_than_a_fifth(swinging):
    # 0.5 up, 0.1 down, 0.4 down, 0.1 up.
    assert swings(swinging([0.0, 0.5, 0.4, 0.0, 0.1])) == 2


def test_the_sentences_hold_the_records_numbers(make_record, swinging):
    sigmoid = "tau=sigmoid"
    records = [make_record("ce", "", c, seed, error=10.0 + seed) for c in ("99", "199")
               for seed in (0, 1)]  # fmt: skip
    records += [
        swinging([0.0, 0.9, 0.0, 0.9], "cdb-w-ce", sigmoid, "99", error=9.0, best_error=4.0),
        swinging([0.0, 0.9, 0.9, 0.9], "cdb-w-ce", sigmoid, "99", 1, error=9.0, best_error=4.0),
        make_record("l2rw", "", "99", 3, error=50.0),
        make_record("l2rw", "", "199", 3, error=3.0),
        make_record("cdb-s", sigmoid, "99", best_error=2.5),
    ]
    text = mnist_findings(to_frame(records))
    # The paper's 8.59 is 1.91 below the mean of 10 and 11, its 14.35 is above it.
    assert "CE +1.9 at 99 and −3.8 at 199" in text
    assert "CDB-W-CE 1 to 3 at 99 and – at 199" in text
    assert "above its best epoch by 5.0 points at 99 and – points at 199" in text
    assert "CDB-S has an error of 2.50 (1) (paper 2.80) at 99" in text
    assert "In 1 of 2 runs of L2RW (at 99, seed 3) the network always gives one answer" in text


def test_readings_are_grouped_by_pixels_and_divisor(make_record):
    def reading(error, scaling, reduction="batch-size", architecture="lenet5"):
        config = {"architecture": architecture, "initialisation": "torch-default"}
        config |= {"input_scaling": scaling, "loss_reduction": reduction}
        # The error on the difficulty set is 100 (1 - its accuracy).
        return make_record(
            difficulty_set_accuracy=1 - error / 100, config=config, group="mnist-lt-readings",
            run=f"{scaling}-{reduction}-{architecture}",
        )  # fmt: skip

    records = [reading(50.0, "unit"), reading(36.0, "standardise"), reading(13.0, "raw")]
    records += [reading(9.0, "unit", "sum"), reading(11.0, "unit", architecture="lenet-ren")]
    text = readings_findings(to_frame(records))
    assert "standardised 36.0 to 50.0 at 99 and – at 199" in text
    assert "as stored 13.0 at 99" in text
    assert "with the sum 9.0 at 99" in text
    assert text.endswith("with the mean, 11.0 at 99 and – at 199.")


def test_without_runs_there_are_no_sentences():
    assert "No run" in mnist_findings(to_frame([]))
