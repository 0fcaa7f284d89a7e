"""The training loop beside a slow literal one; what it keeps and what it leaves alone."""

import math
import random
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.errors import UserError
from common.streams import Streams
from common.training.signals import StopRequest
from tests.states import assert_same_state
from tests.stopping import StopAfter
from tests.video.synthetic import (
    BATCH,
    COUNTS,
    EPOCHS,
    STEPS,
    PlainNetwork,
    Reweighing,
    config_of,
    epochs_of,
    make_training,
    to_the_end,
)
from video.augment import ClipAugmentation
from video.data import Clips, VerbData, load_data
from video.evaluate import make_model
from video.reading import fit_frames, read_all_frames
from video.recipes import VerbMethod, VideoConfig
from video.training import Batch, Training

METHODS = get_args(VerbMethod)
C = len(COUNTS["train"])
# Of the plain network: each epoch's difficulty differs from the last, with either CDB method.
LIVELY: dict[str, Any] = {"plain": True, "learning_rate": 0.05, "seed": 1}


# The literal loop.


def literal_loss(config: VideoConfig, logits: Tensor, label: int, weights: list[float]) -> Tensor:
    """Of one clip, written as in the paper."""
    if config.method in ("balanced-softmax", "logit-adjustment"):
        tau = 1.0 if config.method == "balanced-softmax" else config.la_tau
        powers = torch.tensor([n**tau for n in COUNTS["train"]])
        return -torch.log(powers[label] * torch.exp(logits[label]) / (powers * logits.exp()).sum())
    p = torch.exp(logits[label]) / torch.exp(logits).sum()
    if config.method == "focal":
        return -((1 - p) ** config.focal_gamma) * torch.log(p)
    weighted = config.method in ("cb", "cdb-w-ce")
    return -torch.log(p) * (weights[label] if weighted else 1.0)


def literal_cdb(accuracy: list[float | None], config: VideoConfig) -> tuple[list[float], float]:
    """d_c^tau, not normalised, and tau (Eqs. 2-5, 10); the last verb is never measured."""
    measured = [a for a in accuracy if a is not None]
    bias = max(max(measured) / (min(measured) + config.eps) - 1, 0.0)
    tau = 2 * config.tau_max / (1 + math.exp(-bias)) - config.tau_max
    difficulty = [1.0 if a is None else 1 - a for a in accuracy]
    return [d**tau for d in difficulty], tau


def literal_clip(path: Path, positions: list[float], config: VideoConfig) -> Tensor:
    """(1, T, h, w, 3)"""
    whole = fit_frames(read_all_frames(path), config.frame_height, config.frame_width)
    return torch.stack([whole[math.floor(p * len(whole))] for p in positions])[None]


def literal_order(
    config: VideoConfig, labels: list[int], probabilities: list[float], generator: torch.Generator
) -> list[int]:
    """The training clips of an epoch."""
    count = len(labels)
    if config.method not in ("cfs", "cdb-s"):
        return torch.randperm(count, generator=generator).tolist()
    of_class = [[i for i, label in enumerate(labels) if label == c] for c in range(C)]
    draws = torch.rand(2, count, dtype=torch.float64, generator=generator).tolist()
    order = []
    for first, second in zip(*draws, strict=True):
        label, edge = 0, probabilities[0]
        while edge <= first:
            label += 1
            edge += probabilities[label]
        order.append(of_class[label][math.floor(second * len(of_class[label]))])
    return order


def literal_tested(config: VideoConfig, model: nn.Module, logits: Tensor) -> Tensor:
    """Logits of one clip, as the method has them tested."""
    shares = torch.tensor(COUNTS["train"]) / sum(COUNTS["train"])
    if config.method == "logit-adjustment-post-hoc":
        return logits - config.la_tau * shares.log()
    if config.method == "tau-normalisation":
        classifier = model.get_submodule("fc")
        unbiased = logits - classifier.bias
        return unbiased / classifier.weight.norm(dim=1) ** config.norm_tau
    return logits


def literal_accuracy(model: nn.Module, clips: Clips, config: VideoConfig) -> list[float | None]:
    right, total = [0] * C, [0] * C
    model.eval()
    for path, label in zip(clips.paths, clips.labels.tolist(), strict=True):
        positions = [(i + 0.5) / config.frames for i in range(config.frames)]
        frames = literal_clip(path, positions, config)[:, :, :, 2:18]  # 16 x 20 pixels
        with torch.no_grad():
            logits = model(frames.permute(0, 4, 1, 2, 3).float())
        right[label] += int(literal_tested(config, model, logits[0]).argmax()) == label
        total[label] += 1
    model.train()
    return [r / t if t else None for r, t in zip(right, total, strict=True)]


def literal_step(
    model: nn.Module, momenta: dict[str, Tensor], loss: Tensor, rate: float, config: VideoConfig
) -> None:
    """v <- m v + g + lambda w; w <- w - lr v."""
    named = dict(model.named_parameters())
    gradients = torch.autograd.grad(loss, list(named.values()))
    with torch.no_grad():
        for (name, weight), gradient in zip(named.items(), gradients, strict=True):
            gradient = gradient + config.weight_decay * weight
            before = momenta.get(name, torch.zeros_like(weight))
            momenta[name] = config.momentum * before + gradient
            weight.sub_(rate * momenta[name])


def literal_run(config: VideoConfig, data: VerbData) -> tuple[nn.Module, dict[str, list[Any]]]:
    """All epochs; the weights and a history."""
    streams = Streams(config.seed)
    model = PlainNetwork(C, streams["plain"]).train()
    augment = ClipAugmentation(config.crop, config.max_angle, config.flip)
    counts, labels = COUNTS["train"], data.train.labels.tolist()
    raw = [1.0] * C
    if config.method == "cfs":
        raw = [n**config.cfs_q for n in counts]
    elif config.method == "cb":
        raw = [(1 - config.cb_beta) / (1 - config.cb_beta**n) for n in counts]
    momenta: dict[str, Tensor] = {}
    rows: dict[str, list[Any]] = {"loss": [], "accuracy": [], "weights": []}
    for epoch in range(config.epochs):
        total = sum(raw)
        weights = [C * w / total for w in raw]
        order = literal_order(config, labels, [w / total for w in raw], streams["sampler"])
        number = STEPS * BATCH
        draws = torch.rand(number, config.frames, generator=streams["frames"]).double().tolist()
        changes = augment.draw(number, streams["augmentation"])
        losses = []
        for step in range(STEPS):
            mine = range(step * BATCH, (step + 1) * BATCH)
            clips = []
            for i in mine:
                positions = [(k + u) / config.frames for k, u in enumerate(draws[i])]
                frames = literal_clip(data.train.paths[order[i]], positions, config)
                clips.append(augment.apply(frames, changes[i : i + 1]))
            logits = model(torch.cat(clips))
            loss = sum(
                (
                    literal_loss(config, own, labels[order[i]], weights)
                    for own, i in zip(logits, mine, strict=True)
                ),
                torch.zeros(()),
            )
            rate = config.learning_rate * (0.1 if epoch >= 2 else 1.0)
            literal_step(model, momenta, loss / BATCH, rate, config)
            losses.append(float(loss.detach()) / BATCH)
        accuracy = literal_accuracy(model, data.difficulty, config)
        rows["loss"].append(sum(losses) / STEPS)
        rows["accuracy"].append(accuracy)
        rows["weights"].append(weights)
        if config.method.startswith("cdb"):
            raw, _ = literal_cdb(accuracy, config)
    return model, rows


@pytest.mark.parametrize("method", METHODS)
def test_a_run_equals_a_slow_literal_one(verbs: Path, method: VerbMethod) -> None:
    """Same draws; losses, weighting, sampling, SGD and difficulty written out clip by clip."""
    own = {
        "cb": {"cb_beta": 0.9}, "logit-adjustment": {"la_tau": 1.5},
        "logit-adjustment-post-hoc": {"la_tau": 1.5}, "tau-normalisation": {"norm_tau": 0.7},
    }  # fmt: skip
    changes = LIVELY | own.get(method, {})
    run = to_the_end(make_training(verbs, method, **changes))
    model, rows = literal_run(run.config, run.data)
    assert run.history.rows["class_accuracy"] == rows["accuracy"]
    assert run.history.rows["loss"] == pytest.approx(rows["loss"], rel=1e-6)
    for ours, theirs in zip(run.model.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)
    if method.startswith("cdb"):
        for of_run, literal in zip(run.history.rows["class_weights"], rows["weights"], strict=True):
            assert of_run == pytest.approx(literal, abs=1e-6)
        assert len({tuple(weights) for weights in rows["weights"]}) == EPOCHS


# Difficulty.


@pytest.mark.parametrize("method", ["cdb-s", "cdb-w-ce"])
def test_weights_and_probabilities_follow_the_difficulty_of_the_epoch_before(
    verbs: Path, method: str
) -> None:
    run = make_training(verbs, method, **LIVELY)
    in_force: list[tuple[list[float], list[float]]] = []
    step = run.step

    def watched(batch: Batch) -> Tensor:
        if run._step == 0:
            assert run.method.balancer is not None
            sampled = getattr(run.method.sampler, "probabilities", torch.empty(0))
            in_force.append((run.method.balancer.class_weights.tolist(), sampled.tolist()))
        return step(batch)

    run.step = watched
    to_the_end(run)
    rows = run.history.rows
    assert rows["class_weights"] == [weights for weights, _ in in_force]
    assert rows["class_weights"][0] == [1.0] * C
    assert rows["difficulty"][0] == [1.0] * C
    assert (rows["tau"][0], rows["bias"][0]) == (0.0, 0.0)
    if method == "cdb-s":
        assert in_force[0][1] == pytest.approx([1 / C] * C)
    for epoch in range(1, EPOCHS):
        accuracy = rows["class_accuracy"][epoch - 1]
        assert accuracy[-1] is None
        expected, tau = literal_cdb(accuracy, run.config)
        assert rows["tau"][epoch] == pytest.approx(tau)
        assert rows["difficulty"][epoch] == [1.0 if a is None else 1 - a for a in accuracy]
        shares = [w / sum(expected) for w in expected]
        weights, probabilities = in_force[epoch]
        assert weights == pytest.approx([C * share for share in shares], abs=1e-6)
        if method == "cdb-s":
            assert probabilities == pytest.approx(shares, abs=1e-12)
    assert len({tuple(weights) for weights in rows["class_weights"]}) == EPOCHS


def test_a_class_without_difficulty_clips_keeps_difficulty_1(verbs: Path) -> None:
    rows = to_the_end(make_training(verbs, "cdb-w-ce")).history.rows
    assert COUNTS["difficulty"][-1] == 0
    assert [accuracy[-1] for accuracy in rows["class_accuracy"]] == [None] * EPOCHS
    assert [difficulty[-1] for difficulty in rows["difficulty"]] == [1.0] * EPOCHS


def test_the_difficulty_clips_decide_and_the_test_clips_do_not(
    verbs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = to_the_end(make_training(verbs, "cdb-w-ce"))

    def end_with(**parts: Clips) -> Training:
        def changed(config: VideoConfig, folder: Path | None = None) -> VerbData:
            data = load_data(config, folder)
            for name, clips in parts.items():
                object.__setattr__(data, name, clips)
            return data

        monkeypatch.setattr("tests.video.synthetic.load_data", changed)
        return to_the_end(make_training(verbs, "cdb-w-ce"))

    test, difficulty = usual.data.test, usual.data.difficulty
    other = end_with(test=Clips(test.names[::-1], test.paths[::-1], test.labels))
    assert_same_state(other.state_dict(), usual.state_dict())
    labels = difficulty.labels.flip(0)
    other = end_with(difficulty=Clips(difficulty.names, difficulty.paths, labels))
    assert other.history.rows["difficulty"][1] != usual.history.rows["difficulty"][1]
    with pytest.raises(AssertionError):
        assert_same_state(other.model.state_dict(), usual.model.state_dict())


# State.


def test_stopped_by_a_request_an_epoch_goes_on_at_the_next_step(verbs: Path) -> None:
    run, undisturbed = make_training(verbs), make_training(verbs)
    for steps in (1, 0, 2):
        assert not run.run_epoch(StopAfter(steps))
    assert run._step == 3
    assert_same_state(to_the_end(run).state_dict(), to_the_end(undisturbed).state_dict())


@pytest.mark.parametrize("workers", [0, 1])
def test_global_generators_are_neither_used_nor_changed(verbs: Path, workers: int) -> None:
    ends = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        before = (torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate())  # type: ignore[index]
        ends.append(to_the_end(make_training(verbs, "cdb-s", workers=workers)).state_dict())
        assert torch.equal(torch.get_rng_state(), before[0])
        assert np.random.get_state()[1].tolist() == before[1]  # type: ignore[index]
        assert random.getstate() == before[2]
    assert_same_state(ends[0], ends[1])


# What a step is given.


def test_each_epoch_draws_clips_positions_and_changes_anew(verbs: Path) -> None:
    run = make_training(verbs)
    drawn = []
    for _ in range(2):
        assert not run.run_epoch(StopAfter(0))
        assert run._drawn is not None
        drawn.append(run._drawn)
        assert run.run_epoch(StopRequest())
        run.end_epoch()
    for name in ("order", "positions", "changes"):
        first, second = (epoch[name] for epoch in drawn)
        assert len(first) == STEPS * BATCH
        assert not torch.equal(first, second)
    # Each clip once, but for the last, smaller batch, which is left out.
    assert drawn[0]["order"].unique().numel() == STEPS * BATCH


def test_every_clip_goes_to_the_network_with_its_label_and_its_changes(verbs: Path) -> None:
    run = make_training(verbs)
    given: list[tuple[Tensor, Tensor, Tensor]] = []
    seen: list[Tensor] = []
    step = run.step

    def watched(batch: Batch) -> Tensor:
        given.append((batch["frames"], batch["changes"], batch["labels"]))
        return step(batch)

    def keep(model: nn.Module, inputs: tuple[Tensor]) -> None:
        seen.append(inputs[0].clone())

    run.step = watched
    run.model.register_forward_pre_hook(keep)
    assert not run.run_epoch(StopAfter(0))
    drawn = run._drawn
    assert drawn is not None
    assert run.run_epoch(StopRequest())
    assert torch.equal(torch.cat([changes for _, changes, _ in given]), drawn["changes"])
    assert torch.equal(
        torch.cat([own for _, _, own in given]), run.data.train.labels[drawn["order"]]
    )
    config = run.config
    augment = ClipAugmentation(config.crop, config.max_angle, config.flip)
    for (frames, changes, _), got in zip(given, seen, strict=True):
        assert torch.equal(augment.apply(frames, changes), got)
    for number, order in enumerate(drawn["order"].tolist()):
        clip = literal_clip(
            run.data.train.paths[order], drawn["positions"][number].tolist(), config
        )
        assert torch.equal(given[number // BATCH][0][number % BATCH], clip[0])


def test_what_a_method_draws_for_a_step_reaches_its_loss(verbs: Path) -> None:
    run = make_training(verbs, in_its_place=Reweighing, **LIVELY)
    undisturbed = make_training(verbs, in_its_place=Reweighing, **LIVELY)
    seen: list[Tensor | None] = []
    batch_loss = run.method.batch_loss

    def watched(
        model: nn.Module, images: Tensor, labels: Tensor, draws: Tensor | None, alone: nn.Module
    ) -> Tensor:
        seen.append(draws)
        return batch_loss(model, images, labels, draws, alone)

    run.method.batch_loss = watched  # type: ignore[method-assign, assignment]
    for steps in (1, 2, STEPS):  # Stopped in between: nothing is drawn twice or left out.
        run.run_epoch(StopAfter(steps))
    run.end_epoch()
    own = Streams(run.config.seed)["reweighing"]
    assert_same_state(seen, [torch.randint(BATCH, (3,), generator=own) for _ in range(STEPS)])
    assert_same_state(to_the_end(run).state_dict(), to_the_end(undisturbed).state_dict())
    plain = to_the_end(make_training(verbs, **LIVELY))
    assert differ(plain.model.state_dict(), undisturbed.model.state_dict())


def test_a_method_knows_the_learning_rate_of_the_next_update(verbs: Path) -> None:
    run = make_training(verbs, milestones=(1,), lr_decay=0.5)
    run.set_rate(run.rate_at(0.5))
    assert float(run.method.rate) == 0.02
    run.epoch = 1
    run.set_rate(run.rate_at(0.5))
    assert float(run.method.rate) == 0.01


def test_the_learning_rate_is_that_of_the_schedule(verbs: Path) -> None:
    run = make_training(verbs, milestones=(1, 2), lr_decay=0.5)
    rates: list[float] = []
    step = run.step

    def watched(batch: Batch) -> Tensor:
        rates.append(run.optimizer.param_groups[0]["lr"])
        return step(batch)

    run.step = watched
    to_the_end(run)
    assert rates == [0.02] * STEPS + [0.01] * STEPS + [0.005] * STEPS
    assert run.history.rows["learning_rate"] == [0.02, 0.01, 0.005]


# Every option reaches the code.

EFFECTS: dict[str, tuple[str, Any]] = {
    "method": ("ce", "focal"), "seed": ("ce", 1), "tau": ("cdb-w-ce", "1"),
    "tau_max": ("cdb-w-ce", 0.5), "normalize_weights": ("cdb-w-ce", False),
    "loss_reduction": ("cdb-w-ce", "weight-sum"), "focal_gamma": ("focal", 3.0),
    "cfs_q": ("cfs", 0.0), "sampler_unit": ("cdb-s", "image"),
    "la_tau": ("logit-adjustment", 1.5),
    "difficulty_average": ("cdb-w-ce", 0.9), "difficulty_prior": ("cdb-w-ce", 2.0),
    "weights_from_epoch": ("cdb-s", 1),
    "cb_beta": ("cb", 0.5), "epochs": ("ce", 2), "batch_size": ("ce", 4),
    "learning_rate": ("ce", 0.01), "momentum": ("ce", 0.5), "weight_decay": ("ce", 0.1),
    "milestones": ("ce", (1,)), "lr_decay": ("ce", 0.5), "frames": ("ce", 6),
    "frame_height": ("ce", 20), "frame_width": ("ce", 16), "crop": ("ce", 12),
    "max_angle": ("ce", 0.0), "flip": ("ce", 0.0), "precision": ("ce", "bfloat16"),
}  # fmt: skip
# eps and tau_power: a law they matter to; model and start: the network itself; norm_tau: what is
# tested.
ELSEWHERE = {"dataset", "eps", "tau_power", "model", "start", "norm_tau"}


def test_every_setting_is_tried() -> None:
    assert EFFECTS.keys() | ELSEWHERE == {field.name for field in fields(VideoConfig)}


@pytest.fixture(scope="module")
def usual_weights(verbs: Path) -> Callable[[str], dict[str, Tensor]]:
    known: dict[str, dict[str, Tensor]] = {}

    def of(method: str) -> dict[str, Tensor]:
        if method not in known:
            known[method] = to_the_end(make_training(verbs, method)).model.state_dict()
        return known[method]

    return of


def differ(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> bool:
    return any(not torch.equal(weight, theirs[name]) for name, weight in ours.items())


def test_the_same_settings_give_the_same_weights(
    verbs: Path, usual_weights: Callable[[str], dict[str, Tensor]]
) -> None:
    again = to_the_end(make_training(verbs, "cdb-w-ce")).model.state_dict()
    assert not differ(again, usual_weights("cdb-w-ce"))


@pytest.mark.parametrize("name", EFFECTS)
def test_a_changed_setting_changes_the_weights(
    verbs: Path, name: str, usual_weights: Callable[[str], dict[str, Tensor]]
) -> None:
    method, value = EFFECTS[name]
    usual = usual_weights(method)
    changes = {"method": method} | {name: value}
    assert differ(to_the_end(make_training(verbs, **changes)).model.state_dict(), usual)


@pytest.mark.parametrize(("name", "law", "value"), [
    ("eps", "logarithmic", 0.3), ("tau_power", "polynomial", 4.0),
])  # fmt: skip
def test_a_changed_setting_of_a_law_changes_the_weights(
    verbs: Path, name: str, law: str, value: float
) -> None:
    usual: dict[str, Any] = {"method": "cdb-w-ce", "tau": law, "seed": 1}
    first, second = (
        to_the_end(make_training(verbs, **changes)).model.state_dict()
        for changes in (usual, usual | {name: value})
    )
    assert differ(first, second)


def test_the_model_is_the_configured_one() -> None:
    big = make_model(config_of("ce", model="resnext101"), C, Streams(0))
    small = make_model(config_of("ce"), C, Streams(0))
    assert sum(isinstance(m, nn.Conv3d) for m in big.modules()) == 1 + 3 * 33 + 4
    assert sum(p.numel() for p in small.parameters()) < 2e5


# What an epoch leaves.


def test_the_best_weights_are_those_of_the_first_epoch_best_on_the_difficulty_set(
    verbs: Path,
) -> None:
    run = make_training(verbs, learning_rate=0.01)
    weights = []
    for _ in epochs_of(run):
        weights.append({name: w.clone() for name, w in run.model.state_dict().items()})
    means = [
        np.mean([a for a in accuracy if a is not None])
        for accuracy in run.history.rows["class_accuracy"]
    ]
    best = int(np.argmax(means))
    found = run.history.evaluated_weights(run.model)
    assert not differ(found["best"], weights[best])
    assert not differ(found["last"], weights[-1])
    measured = run.history.measured()
    assert (measured["best"]["epoch"], measured["last"]["epoch"]) == (best + 1, EPOCHS)
    assert measured["best"]["difficulty_set_accuracy"] == pytest.approx(means[best])


def test_measuring_the_difficulty_moves_no_weight_and_no_statistic(verbs: Path) -> None:
    run = make_training(verbs)
    assert run.run_epoch(StopRequest())
    before = {name: w.clone() for name, w in run.model.state_dict().items()}
    run.end_epoch()
    assert not differ(run.model.state_dict(), before)


# What is refused.


def test_a_batch_larger_than_the_training_set_is_refused(verbs: Path) -> None:
    with pytest.raises(UserError, match="--batch-size 29 is more than the 28 training clips"):
        make_training(verbs, batch_size=29)
    assert make_training(verbs, batch_size=28).steps == 1


def test_the_losses_that_are_written_out_here_are_torchs() -> None:
    logits = torch.tensor([0.3, -1.0, 2.0, 0.0, 0.5, 1.0])
    expected = F.cross_entropy(logits[None], torch.tensor([4]))
    torch.testing.assert_close(literal_loss(config_of("ce"), logits, 4, []), expected)
