"""The training loop: what drives it, what it keeps and what it leaves alone."""

import json
import math
import random
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from common.errors import UserError
from common.training.signals import StopRequest
from data_prep.lvis import REST_FILE
from data_prep.lvis_format import read_lvis
from detection import training as training_module
from detection.ap import ApResult
from detection.data import DetectionData, images_on_disk
from detection.evaluate import measure_ap
from detection.methods.calibration import EPISODE
from detection.models import LAYOUTS
from detection.recipes import RECIPES, ClassifierConfig, DetectorConfig, resolved
from detection.sets import DetectionSets, load_sets
from detection.training import Training
from tests.detection.rcnn_scenes import TINY
from tests.detection.runs import (
    BATCH,
    CHANGES,
    EPOCHS,
    FIRST,
    SECOND,
    STEPS,
    TRAIN,
    C,
    config_of,
    make_training,
    to_the_end,
    training_of,
    write_lvis,
)
from tests.states import assert_same_state, written_and_read
from tests.stopping import StopAfter

STAGES = [(method, False) for method in FIRST] + [(method, True) for method in SECOND]
Weights = dict[str, Tensor]


def copied(run: Training) -> Weights:
    return {name: weight.clone() for name, weight in run.model.state_dict().items()}


def differing(ours: Weights, theirs: Weights) -> set[str]:
    assert ours.keys() == theirs.keys()
    return {name for name, weight in ours.items() if not torch.equal(weight, theirs[name])}


def watch_steps(run: Training, look: Callable[[], None]) -> None:
    """Call ``look`` before each step's update and the first pass."""
    step = run.step

    def watched(batch: Any) -> Tensor:
        loss = step(batch)
        look()
        return loss

    run.step = watched


@pytest.fixture(autouse=True)
def few_proposals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LAYOUTS, "small", TINY)  # type: ignore[arg-type]


# Every method, both stages, both tasks.


@pytest.mark.parametrize(("method", "second"), STAGES)
@pytest.mark.parametrize("task", ["box", "mask"])
def test_every_method_trains_and_only_what_its_stage_trains(
    shapes: Path, method: str, second: bool, task: str
) -> None:
    run = make_training(shapes, method, second=second, task=task, epochs=1, milestones=(2,))
    before = copied(run)
    assert run.run_epoch(StopRequest())
    assert run._losses.isfinite().all()
    changed = differing(copied(run), before)
    trained = {name for name, p in run.model.named_parameters() if p.requires_grad}
    classifier = "roi_heads.calibrated." if method in ("simcal", "calib") else (
        "roi_heads.box_predictor.cls_score."
    )  # fmt: skip
    if second:
        assert changed == trained == {name for name in before if name.startswith(classifier)}
    else:
        # An object may be missing in the whole of so few steps, but no part of the network.
        assert trained == {name for name, _ in run.model.named_parameters()}
        parts = {"backbone", "rpn", "box_head", "box_predictor"}
        parts |= {"mask_head", "mask_predictor"} if task == "mask" else set()
        assert {part for part in parts if any(part in name for name in changed)} == parts


def test_an_image_without_annotation_is_kept_and_trained_on(shapes: Path) -> None:
    run = make_training(shapes, batch_size=1, epochs=1)
    empty = []

    def look(batch: Any) -> Tensor:
        empty.append(len(batch[1][0]["boxes"]) == 0)
        return step(batch)

    step = run.step
    run.step = look
    assert run.run_epoch(StopRequest())
    assert sum(empty) == 1
    assert len(empty) == TRAIN
    lost = run._losses[empty.index(True)]
    assert lost.isfinite()
    assert lost > 0


def test_boxes_too_thin_to_train_on_and_crowds_do_not_end_a_run(tmp_path: Path) -> None:
    folder = write_lvis(tmp_path / "own set")
    said = json.loads((folder / REST_FILE).read_text())
    said["annotations"][0]["bbox"][2] = 1e-6
    said["annotations"][1]["iscrowd"] = 1
    (folder / REST_FILE).write_text(json.dumps(said))
    run = make_training(folder, epochs=1)
    seen: list[int] = []
    step = run.step

    def look(batch: Any) -> Tensor:
        seen.extend(len(target["boxes"]) for target in batch[1])
        return step(batch)

    run.step = look
    assert run.run_epoch(StopRequest())
    assert sum(seen) == len(said["annotations"]) - 2


# Schedule and clipping.


def test_the_learning_rate_is_that_of_the_warm_up_and_the_steps(shapes: Path) -> None:
    run = make_training(shapes, warmup_steps=3, milestones=(1,), lr_decay=0.5)
    rates: list[float] = []
    watch_steps(run, lambda: rates.append(run.optimizer.param_groups[0]["lr"]))
    to_the_end(run)
    highest = 0.04 * BATCH / 8
    warm = [highest * factor for factor in (1 / 3, 5 / 9, 7 / 9, 1.0)]
    assert rates == pytest.approx(warm + [highest / 2] * STEPS)
    assert run.history.rows["learning_rate"] == pytest.approx([highest, highest / 2])


def test_the_warm_up_goes_on_over_the_end_of_an_epoch(shapes: Path) -> None:
    run = make_training(shapes, warmup_steps=2 * STEPS, milestones=(2,))
    rates: list[float] = []
    watch_steps(run, lambda: rates.append(run.optimizer.param_groups[0]["lr"]))
    to_the_end(run)
    highest = 0.04 * BATCH / 8
    steps = range(2 * STEPS)
    assert rates == pytest.approx([highest * (1 / 3 + 2 / 3 * s / (2 * STEPS)) for s in steps])


@pytest.mark.parametrize("clip", [1e-3, 1e6])
def test_the_gradient_of_a_step_is_no_longer_than_the_clip(shapes: Path, clip: float) -> None:
    run = make_training(shapes, gradient_clip=clip, epochs=1)
    norms: list[float] = []

    def look() -> None:
        gradients = [p.grad for p in run.model.parameters() if p.grad is not None]
        norms.append(float(torch.stack([g.norm() for g in gradients]).norm()))

    watch_steps(run, look)
    assert not run.run_epoch(StopAfter(2))
    assert all(norm <= clip * 1.001 for norm in norms)
    assert all(norm > 0.99 * clip for norm in norms) is (clip == 1e-3)


def test_a_step_is_sgd_with_momentum_and_decay_of_the_clipped_gradient(shapes: Path) -> None:
    """v <- m v + g + lambda w; w <- w - lr v, of every parameter of two steps."""
    run = make_training(shapes, weight_decay=0.01, momentum=0.8, epochs=1)
    expected = {name: p.detach().double() for name, p in run.model.named_parameters()}
    momenta = {name: torch.zeros_like(weight) for name, weight in expected.items()}

    def look() -> None:
        rate = run.optimizer.param_groups[0]["lr"]
        for name, p in run.model.named_parameters():
            assert p.grad is not None
            momenta[name] = 0.8 * momenta[name] + p.grad.double() + 0.01 * expected[name]
            expected[name] = expected[name] - rate * momenta[name]

    watch_steps(run, look)
    assert not run.run_epoch(StopAfter(2))
    for name, p in run.model.named_parameters():
        torch.testing.assert_close(p.detach().double(), expected[name], rtol=1e-5, atol=1e-6)


def test_a_gradient_of_any_length_is_kept_where_the_clip_is_0(shapes: Path) -> None:
    kept, long = (
        copied(to_the_end(make_training(shapes, gradient_clip=clip, epochs=1)))
        for clip in (0.0, 1e6)
    )
    assert not differing(kept, long)


@pytest.mark.parametrize("method", ["simcal", "calib"])
def test_a_step_of_a_calibration_is_plain_sgd(shapes: Path, method: str) -> None:
    """w <- w - 0.01 g from the first step on, and a tenth of the step from the 8th epoch on."""
    theirs: dict[str, Any] = {"learning_rate": 0.01, "warmup_steps": None, "milestones": None}
    run = make_training(shapes, method, second=True, epochs=8, **theirs)
    trained = [p for p in run.model.parameters() if p.requires_grad]
    expected = [p.detach().double() for p in trained]
    rates: list[float] = []

    def look() -> None:
        rates.append(run.optimizer.param_groups[0]["lr"])
        for place, p in enumerate(trained):
            assert p.grad is not None
            expected[place] = expected[place] - rates[-1] * p.grad.double()

    watch_steps(run, look)
    to_the_end(run)
    assert rates == pytest.approx([0.01] * 7 + [0.001])  # An epoch has one episode here.
    for weight, p in zip(expected, trained, strict=True):
        torch.testing.assert_close(p.detach().double(), weight, rtol=1e-5, atol=1e-6)


# Difficulty.


@pytest.mark.parametrize("difficulty", ["ap", "proposals"])
@pytest.mark.parametrize(("method", "second"), [("cdb-w-ce", False), ("cdb-w-ce", True)])
def test_the_weights_follow_the_difficulty_of_the_epoch_before(
    shapes: Path, method: str, second: bool, difficulty: str
) -> None:
    run = make_training(shapes, method, second=second, difficulty=difficulty, tau="2")
    in_force: list[list[float]] = []

    def look() -> None:
        head: Any = run.model.roi_heads.head
        # Of each category what a loss of 1 becomes, alone in its batch.
        each = torch.arange(C)[:, None]
        in_force.append([float(head.reduce(torch.ones(1), label)) for label in each])

    watch_steps(run, look)
    to_the_end(run)
    rows = run.history.rows
    assert rows["class_weights"] == in_force[::STEPS]
    assert rows["class_weights"][0] == [1.0] * C
    assert rows["difficulty"][0] == [1.0] * C
    measured = rows["class_accuracy"][0]
    # Of a category that no image has nothing is measured: it keeps its difficulty.
    assert measured[-1] is None
    assert any(measured[c] for c in range(C - 1))
    expected = [1.0 if a is None else 1 - a for a in measured]
    assert rows["difficulty"][1] == pytest.approx(expected)
    squares = [d**2 for d in expected]
    weights = [C * square / sum(squares) for square in squares]
    assert rows["class_weights"][1] == pytest.approx(weights, abs=1e-6)
    assert rows["class_weights"][1] != [1.0] * C


def test_the_background_weighs_1_whatever_the_difficulty(shapes: Path) -> None:
    run = make_training(shapes, "cdb-w-ce", difficulty="proposals", tau="2")
    to_the_end(run)
    head: Any = run.model.roi_heads.head
    assert run.method.balancer is not None
    assert run.method.balancer.class_weights.max() > 1.1
    logits = torch.zeros(1, C + 1)
    assert float(head.loss(logits, torch.tensor([C]))) == pytest.approx(math.log(C + 1))
    hardest = int(run.method.balancer.class_weights.argmax())
    expected = float(run.method.balancer.class_weights[hardest]) * math.log(C + 1)
    assert float(head.loss(logits, torch.tensor([hardest]))) == pytest.approx(expected)


def test_cdb_s_draws_images_with_the_probabilities_of_the_last_difficulty(shapes: Path) -> None:
    run = make_training(shapes, "cdb-s", difficulty="proposals", tau="2")
    sampled: list[list[float]] = []
    watch_steps(run, lambda: sampled.append(run.method.sampler.probabilities.tolist()))  # type: ignore[attr-defined]
    to_the_end(run)
    empty = 1 / TRAIN
    # The four categories that images have, then the images without annotation.
    assert sampled[0] == pytest.approx([(1 - empty) / 4] * 4 + [empty])
    squares = [d**2 for d in run.history.rows["difficulty"][1][:4]]
    share = [(1 - empty) * square / sum(squares) for square in squares]
    assert sampled[-1] == pytest.approx([*share, empty])
    assert len({round(p, 6) for p in sampled[-1][:4]}) > 1


def test_ap_is_measured_each_t_epochs_and_else_difficulties_stay(
    shapes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def counted(*arguments: Any, **options: Any) -> dict[str, ApResult]:
        calls.append(run.epoch)
        return measure_ap(*arguments, **options)

    monkeypatch.setattr(training_module, "measure_ap", counted)
    run = make_training(shapes, "cdb-w-ce", difficulty_period=2, epochs=5, milestones=(9,))
    assert run.method.balancer is not None
    update, updates = run.method.balancer.update, []

    def counted_update(performance: Tensor) -> None:
        updates.append(run.epoch)
        update(performance)

    run.method.balancer.update = counted_update  # type: ignore[method-assign]
    to_the_end(run)
    assert calls == updates == [1, 3]
    rows = run.history.rows
    measured = [any(a is not None for a in row) for row in rows["class_accuracy"]]
    assert measured == [False, True, False, True, False]
    assert rows["difficulty"][0] == rows["difficulty"][1] == [1.0] * C
    assert rows["difficulty"][2] == rows["difficulty"][3] != rows["difficulty"][4]


def test_the_measured_ap_is_that_of_the_boxes_of_the_difficulty_images(shapes: Path) -> None:
    run = make_training(shapes, "cdb-w-ce", task="mask", epochs=1)
    to_the_end(run)
    again = measure_ap(run.model, run.sets.difficulty, masks=True)["bbox"].category_ap.tolist()
    measured = [None if math.isnan(a) else a for a in again]
    assert run.history.rows["class_accuracy"] == [measured]


def test_a_methods_without_difficulty_measure_none(
    shapes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(training_module, "measure_ap")
    run = to_the_end(make_training(shapes, "ce"))
    assert run.history.rows["class_accuracy"] == [[None] * C] * EPOCHS
    assert run.model.roi_heads.proposal_accuracy is None


def test_measuring_the_difficulty_moves_no_weight_and_keeps_the_mask_branch(shapes: Path) -> None:
    run = make_training(shapes, "cdb-w-ce", task="mask", epochs=1)
    assert run.run_epoch(StopRequest())
    before, pool = copied(run), run.model.roi_heads.mask_roi_pool
    run.end_epoch()
    assert not differing(copied(run), before)
    assert run.model.training
    assert run.model.roi_heads.mask_roi_pool is pool is not None


def test_the_cost_of_the_difficulty_is_printed(
    shapes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for method, changes in (("cdb-w-ce", {}), ("cdb-s", {"difficulty": "proposals"}), ("ce", {})):
        run = make_training(shapes, method, **changes)
        run.difficulty_seconds = 2.0
        run.done(8.0)
    assert capsys.readouterr().out.splitlines() == [
        "difficulty by ap: 2.0 s of 8 s, 25.0 %",
        "difficulty by proposals: 2.0 s of 8 s, 25.0 %",
    ]


def test_the_difficulty_images_decide_and_the_val_images_do_not(shapes: Path) -> None:
    config = config_of("cdb-w-ce", tau="2")
    sets = load_sets(config, shapes, shapes)
    usual = to_the_end(training_of(config, sets))
    other = to_the_end(training_of(config, DetectionSets(sets.train, sets.difficulty, sets.train)))
    assert_same_state(timeless(other.state_dict()), timeless(usual.state_dict()))
    other = to_the_end(training_of(config, DetectionSets(sets.train, sets.val, sets.val)))
    assert other.history.rows["difficulty"][1] != usual.history.rows["difficulty"][1]
    assert differing(copied(other), copied(usual))


# State.


def timeless(state: dict[str, Any]) -> dict[str, Any]:
    """A state without what the clock says."""
    return {name: value for name, value in state.items() if name != "difficulty_seconds"}


@pytest.mark.parametrize(
    ("method", "second", "changes"),
    [
        ("rfs", False, {}),
        ("cdb-s", False, {"task": "mask"}),
        ("cdb-w-ce", False, {"difficulty": "proposals"}),
        ("bags", True, {}),
        ("simcal", True, {"epochs": 3}),
    ],
)
def test_a_copy_made_from_the_state_at_a_step_ends_alike_to_the_bit(
    shapes: Path, method: str, second: bool, changes: dict[str, Any]
) -> None:
    def fresh() -> Training:
        return make_training(shapes, method, second=second, **changes)

    undisturbed = timeless(to_the_end(fresh()).state_dict())
    run = fresh()
    assert run.run_epoch(StopRequest())
    steps = 0 if method == "simcal" else 2
    states = [written_and_read(run.state_dict())]  # Before the end of the epoch,
    run.end_epoch()
    states.append(written_and_read(run.state_dict()))  # between two,
    assert not run.run_epoch(StopAfter(steps))
    states.append(written_and_read(run.state_dict()))  # and within one.
    assert (run.epoch, run._step) == (1, steps)
    for state in states:
        resumed = fresh()
        resumed.load_state_dict(state)
        assert_same_state(timeless(to_the_end(resumed).state_dict()), undisturbed)


@pytest.mark.parametrize("workers", [0, 1])
def test_global_generators_are_neither_used_nor_changed(shapes: Path, workers: int) -> None:
    ends = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        before = (torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate())  # type: ignore[index]
        run = make_training(shapes, "cdb-s", workers=workers, epochs=1, min_size=(32, 40))
        ends.append(timeless(to_the_end(run).state_dict()))
        assert torch.equal(torch.get_rng_state(), before[0])
        assert np.random.get_state()[1].tolist() == before[1]  # type: ignore[index]
        assert random.getstate() == before[2]
    assert_same_state(ends[0], ends[1])


# What a step is given.


def test_each_epoch_draws_its_images_and_flips_anew(shapes: Path) -> None:
    run = make_training(shapes)
    drawn = []
    for _ in range(2):
        assert not run.run_epoch(StopAfter(0))
        assert run._drawn is not None
        drawn.append(run._drawn["requests"])
        assert run.run_epoch(StopRequest())
        run.end_epoch()
    assert drawn[0] != drawn[1]
    for requests in drawn:
        assert sorted(image for image, _, _ in requests) == list(range(TRAIN))
        assert {flipped for _, _, flipped in requests} == {False, True}


def test_the_images_of_an_episode_come_with_the_category_they_were_drawn_for(shapes: Path) -> None:
    run = make_training(shapes, "simcal", second=True, epochs=1)
    seen: list[tuple[list[int], int]] = []
    step = run.step

    def look(batch: Any) -> Tensor:
        for target in batch[1]:
            seen.append((target["labels"].tolist(), int(target["drawn_for"])))
        return step(batch)

    run.step = look
    assert run.run_epoch(StopRequest())
    # Fewer images than an episode has: they are drawn with replacement.
    assert len(seen) == EPISODE > TRAIN
    assert all(wanted in labels for labels, wanted in seen)


# Every option reaches the code.

EFFECTS: dict[str, tuple[str, dict[str, Any], Any]] = {
    "method": ("ce", {}, "eql"), "task": ("ce", {}, "mask"), "seed": ("ce", {}, 1),
    "tau": ("cdb-w-ce", {}, "1"), "tau_max": ("cdb-w-ce", {"difficulty": "proposals"}, 0.5),
    "normalize_weights": ("cdb-w-ce", {"tau": "2"}, False),
    "loss_reduction": ("cdb-w-ce", {"tau": "2"}, "weight-sum"),
    "difficulty": ("cdb-w-ce", {}, "proposals"), "difficulty_period": ("cdb-w-ce", {"tau": "2"}, 2),
    "weights_from_epoch": ("cdb-s", {}, 1),
    "rfs_threshold": ("rfs", {}, 1e-9), "eql_threshold": ("eql", {}, 0.7), "epochs": ("ce", {}, 1),
    "batch_size": ("ce", {}, 4), "learning_rate": ("ce", {}, 0.01), "momentum": ("ce", {}, 0.5),
    "weight_decay": ("ce", {}, 0.1), "milestones": ("ce", {}, (9,)), "lr_decay": ("ce", {}, 0.5),
    "warmup_steps": ("ce", {}, 2), "gradient_clip": ("ce", {}, 0.01), "min_size": ("ce", {}, (32,)),
    "max_size": ("ce", {"min_size": (50,)}, 50), "flip": ("ce", {}, 0.0),
    "precision": ("ce", {}, "bfloat16"),
    # Of an evaluation, which moves the difficulty.
    "detections": ("cdb-w-ce", {"tau": "2"}, 2), "score_threshold": ("cdb-w-ce", {"tau": "2"}, 0.3),
    "eps": ("cdb-w-ce", {"tau": "logarithmic", "difficulty": "proposals"}, 0.3),
    "tau_power": ("cdb-w-ce", {"tau": "polynomial", "difficulty": "proposals"}, 4.0),
}  # fmt: skip
EFFECTS_OF_SECOND: dict[str, tuple[str, Any]] = {
    "focal_gamma": ("focal", 0.0), "focal_alpha": ("focal", 0.75), "bags_beta": ("bags", 0.0),
}  # fmt: skip
# The network itself and its first weights, the first stage, and what scores: in test_networks.py.
ELSEWHERE = {"backbone", "start", "stage1", "stage1_epochs", "calibration_threshold"}
# From the third epoch on.
ELSEWHERE |= {"difficulty_average"}
NO_OPTION = {"recipe", "dataset"}


def test_every_setting_is_tried() -> None:
    tried = EFFECTS.keys() | EFFECTS_OF_SECOND.keys() | ELSEWHERE | NO_OPTION
    kinds = (DetectorConfig, ClassifierConfig)
    assert tried == {field.name for kind in kinds for field in fields(kind)}


@pytest.fixture(scope="module")
def usual_state(shapes: Path) -> Callable[..., dict[str, Any]]:
    known: dict[str, dict[str, Any]] = {}

    def of(method: str, **changes: Any) -> dict[str, Any]:
        key = f"{method} {sorted(changes.items())}"
        if key not in known:
            run = to_the_end(make_training(shapes, method, epochs=EPOCHS, **changes))
            known[key] = copied(run) | {"last": torch.tensor(run.history.rows["loss"])}
        return known[key]

    return of


@pytest.mark.parametrize("name", EFFECTS)
def test_a_changed_setting_changes_the_weights(
    shapes: Path, name: str, usual_state: Callable[..., dict[str, Any]]
) -> None:
    method, beside, value = EFFECTS[name]
    usual = usual_state(method, **beside)
    changes: dict[str, Any] = {"method": method} | beside | {name: value}
    weights = copied(to_the_end(make_training(shapes, **changes)))
    assert any(
        not torch.equal(weight, usual[key]) for key, weight in weights.items() if key in usual
    )


def test_an_average_changes_the_weights_from_the_second_measurement_on(shapes: Path) -> None:
    usual: dict[str, Any] = {"tau": "2", "difficulty": "proposals", "epochs": 3}
    plain, averaged = (
        to_the_end(make_training(shapes, "cdb-w-ce", **usual, difficulty_average=average))
        for average in (0.0, 0.9)
    )
    ours, theirs = (run.history.rows["class_weights"] for run in (plain, averaged))
    assert ours[:2] == theirs[:2]
    assert ours[2] != theirs[2]
    assert differing(copied(plain), copied(averaged))


@pytest.mark.parametrize("name", EFFECTS_OF_SECOND)
def test_a_changed_setting_of_a_second_stage_changes_the_weights(shapes: Path, name: str) -> None:
    method, value = EFFECTS_OF_SECOND[name]
    usual, other = (
        copied(to_the_end(make_training(shapes, method, second=True, epochs=1, **changes)))
        for changes in ({}, {name: value})
    )
    assert differing(other, usual)


# What is refused.


def test_difficulty_images_without_any_annotation_are_refused_where_ap_is_measured(
    shapes: Path,
) -> None:
    sets = load_sets(config_of("ce"), shapes, shapes)
    images = sets.train.annotations.image_ids[:1]  # The first one has no annotation.
    empty = DetectionData(sets.train.annotations.select(images), sets.train.paths[:1])
    bare = DetectionSets(sets.train, empty, sets.val)
    with pytest.raises(UserError, match=r"has no annotation, .* --difficulty proposals"):
        training_of(config_of("cdb-w-ce"), bare)
    training_of(config_of("cdb-w-ce", difficulty="proposals"), bare)
    training_of(config_of("ce"), bare)


def test_a_batch_larger_than_the_training_set_is_refused(shapes: Path) -> None:
    with pytest.raises(UserError, match=f"--batch-size 9 is more than the {TRAIN} training images"):
        make_training(shapes, batch_size=TRAIN + 1)
    assert make_training(shapes, batch_size=TRAIN).size == TRAIN


# Real photographs.


@pytest.fixture(scope="module")
def sets_of_photographs(photographs: Path) -> DetectionSets:
    """Training images that hold several objects; also for the difficulty and for evaluation."""
    train, val = (read_lvis(photographs / f"{part}.json") for part in ("train", "val"))
    few = val.select(val.image_ids[:4])
    data = [
        DetectionData(part, images_on_disk(part, photographs), masks=True) for part in (train, few)
    ]
    return DetectionSets(data[0], data[1], data[1])


@pytest.mark.parametrize(
    ("method", "second", "task"),
    [*((*stage, "mask") for stage in STAGES), ("ce", False, "box"), ("bags", True, "box")],
)
def test_every_method_takes_steps_on_photographs_and_is_evaluated(
    sets_of_photographs: DetectionSets, method: str, second: bool, task: str
) -> None:
    changes = {k: v for k, v in CHANGES.items() if k in ("backbone", "start")}
    changes |= {"min_size": (64,), "max_size": 96, "detections": 20, "epochs": 1}
    changes |= {"eql_threshold": 0.05} if method == "eql" else {}
    changes |= {"batch_size": 2} if method not in ("simcal", "calib") else {}
    recipe = RECIPES["lvis-clc" if second else "lvis"]
    config = resolved(replace(recipe, method=method, task=task, **changes))  # type: ignore[arg-type]
    run = training_of(config, sets_of_photographs)
    assert not run.run_epoch(StopAfter(1 if run.size > 2 else 2))
    assert run._losses[: run._step].isfinite().all()
    assert (run._losses[: run._step] > 0).all()
    results = measure_ap(run.model, sets_of_photographs.val, masks=task == "mask")
    assert results.keys() == ({"bbox", "segm"} if task == "mask" else {"bbox"})
    for result in results.values():
        measured = result.category_ap[~np.isnan(result.category_ap)]
        assert 0 < len(measured) < 80
        assert ((measured >= 0) & (measured <= 1)).all()
