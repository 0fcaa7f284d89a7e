"""The core's numbers without torch in the process that reads the records."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from analysis import core
from common.errors import UserError
from common.training import record as of_core

ROOT = Path(__file__).parents[2]


@pytest.fixture
def asking(monkeypatch):
    """As in a process that has no torch."""
    monkeypatch.setattr(core, "_has_torch", lambda: False)


def test_another_process_gives_the_cores_numbers_to_the_bit(asking, monkeypatch, make_record):
    records = [make_record("cdb-w-ce", "tau=sigmoid", epochs=4), make_record("ce")]
    asked = [core.courses(record) for record in records]
    assert asked == [of_core.courses(record) for record in records]
    assert asked[0]["tau"]
    assert asked[1] == {}
    there = [core.weights_over_accuracy(1.5, points=401), core.tau_over_bias("sigmoid", 5.0, 991)]
    monkeypatch.setattr(core, "_has_torch", lambda: True)
    here = [core.weights_over_accuracy(1.5, points=401), core.tau_over_bias("sigmoid", 5.0, 991)]
    assert [[a.tobytes() for a in pair] for pair in there] == [
        [a.tobytes() for a in pair] for pair in here
    ]


def test_what_the_core_refuses_is_refused_with_its_words_and_the_next_question_is_answered(asking):
    with pytest.raises(ValueError, match="tau must be at least 0"):
        core.weights_over_accuracy(-1.0, 3)
    assert core.weights_over_accuracy(0.0, 3)[1].tolist() == [1.0, 1.0, 1.0]


def test_a_process_that_has_ended_is_one_sentence(asking, monkeypatch):
    process = core._Process()
    process._process.kill()
    monkeypatch.setattr(core, "_process", lambda: process)
    with pytest.raises(UserError, match=r"computes with torch has ended \(exit code -9\)"):
        core.weights_over_accuracy(1.0, 3)


NO_TORCH = """
import json, sys
from analysis import report
report.main(report.Options(runs, results, out))
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
json.dump({"torch": "torch" in sys.modules, "MB": int(peak.split()[1]) // 1024}, open(said, "w"))
"""


def test_a_report_with_courses_loads_no_torch_and_stays_below_400_mb(
    make_record, publish, finish, tmp_path
):
    runs, results = finish(make_record("cdb-w-ce", "tau=sigmoid")), publish(make_record())
    names = {"runs": runs, "results": results, "out": tmp_path / "out", "said": tmp_path / "said"}
    paths = "".join(f"{name} = Path({str(path)!r})\n" for name, path in names.items())
    code = f"from pathlib import Path\n{paths}{NO_TORCH}"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)
    said = json.loads((tmp_path / "said").read_text())
    assert not said["torch"]
    assert said["MB"] < 400


def test_no_command_of_the_analysis_loads_torch_at_its_start():
    modules = "report, tables, publish, figures.__main__"
    imports = "; ".join(f"import analysis.{module}" for module in modules.split(", "))
    said = subprocess.run(
        [sys.executable, "-c", f"{imports}; import sys; print('torch' in sys.modules)"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert said.stdout == "False\n"
