"""The sentences on MNIST-LT."""

from analysis.mnist_findings import mnist_findings, readings_findings
from analysis.records import to_frame


def test_the_sentences_hold_the_records_numbers(make_record):
    sigmoid = "tau=sigmoid"
    records = [
        *(make_record("ce", "", c, s, error=10.0 + s) for c in ("99", "199") for s in (0, 1)),
        make_record("cdb-w-ce", sigmoid, "99", error=50.0),
        make_record("cdb-w-ce", "tau=2.0", "99", error=4.0),
        make_record("cdb-w-ce", f"{sigmoid} average=0.9", "99", error=3.5, best_error=3.0),
        make_record("cdb-w-ce", "tau=2.0 prior=1", "99", error=50.0),
        make_record("l2rw", "", "99", 3, error=50.0),
        make_record("l2rw", "", "199", 3, error=3.0),
        make_record("cdb-s", sigmoid, "99", error=7.0, best_error=2.5),
    ]
    text = mnist_findings(to_frame(records))
    # The paper's 8.59 is 1.91 below the mean of 10 and 11, its 14.35 is above it.
    assert "CE +1.9 at 99 and −3.8 at 199, CFS – at 99" in text
    assert "one answer: 1 of 1 at 99 and 0 of 1 at 199." in text
    assert "as printed has 50.00 (1) at 99 and – at 199 (the paper 2.39 at 99" in text
    # The steadied run that fell is none of them.
    assert "at the end in 1 of 2 at 99 and 0 of 0 at 199 runs" in text
    assert "CDB-S as printed has 7.00 (1) at 99 and – at 199 at the last epoch, 2.50 (1)" in text
    assert "by Eq. 10 CDB-W-CE 3.50 (1) at 99 and – at 199 (the paper 2.39 at 99" in text
    # The paper's of Table 2.
    assert "with τ 2 CDB-W-CE – at 99 and – at 199 (the paper 2.23 at 99 and 3.65 at 199)" in text


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
