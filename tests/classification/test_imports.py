"""What a run on MNIST imports: nothing of other data sets, of other tasks, and no large package."""

import json
import subprocess
import sys
from pathlib import Path

from tests.classification.trainer import ROOT

SCRIPT = """
import json, runpy, sys
sys.argv[0] = "classification.train"
runpy.run_module("classification.train", run_name="__main__", alter_sys=True)
json.dump(sorted(sys.modules), sys.stderr)
"""
OTHERS = {"torchvision", "PIL", "pandas", "matplotlib", "av", "detection", "video", "analysis"}
RENDERER = {"digit_plan", "digit_scenes", "digit_styles", "image_example", "motions", "rendered"}


def test_a_run_on_mnist_loads_no_torchvision_no_renderer_and_no_other_task(tmp_path: Path) -> None:
    words = ["mnist-lt", "--method", "cdb-w-ce", "--epochs", "1", "--out", str(tmp_path)]
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT, *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr
    assert list(tmp_path.rglob("record.json"))
    modules = set(json.loads(ended.stderr.splitlines()[-1]))
    assert not OTHERS & {name.partition(".")[0] for name in modules}
    assert not {f"data_prep.{name}" for name in RENDERER} & modules
    ours = {name for name in modules if name.startswith(("classification.image", "data_prep."))}
    assert ours == {
        "classification.image_recipes", "data_prep.cifar100", "data_prep.mnist", "data_prep.split",
    } | ({"data_prep.image_list"} & modules)  # fmt: skip


def test_predictions_load_no_torchvision_before_a_network_needs_it() -> None:
    script = "import classification.predict, json, sys; json.dump(sorted(sys.modules), sys.stdout)"
    ended = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 0, ended.stderr
    modules = set(json.loads(ended.stdout))
    assert not (OTHERS - {"PIL"}) & {name.partition(".")[0] for name in modules}
    assert not {f"data_prep.{name}" for name in RENDERER} & modules
