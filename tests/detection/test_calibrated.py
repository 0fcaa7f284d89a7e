import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from detection.heads import CalibratedHead, FocalHead, SoftmaxHead, calibration_proposals

C = 5
COUNTS = torch.tensor([100, 99, 5000, 0, 1])
thorough = settings(deadline=None, max_examples=60, derandomize=True)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make(threshold: int = 100) -> CalibratedHead:
    return CalibratedHead(SoftmaxHead(C), SoftmaxHead(C), COUNTS, threshold)


def random_logits(head: CalibratedHead, size: int = 6) -> Tensor:
    return torch.randn(size, head.num_logits, generator=seeded(), dtype=torch.float64)


def test_categories_under_100_instances_take_the_calibrated_scores() -> None:
    head = make()
    logits = random_logits(head)
    original = logits[:, : C + 1].softmax(dim=1)
    calibrated = logits[:, C + 1 :].softmax(dim=1)
    scores = head.probabilities(logits)
    for c, count in enumerate(COUNTS.tolist()):
        expected = calibrated if count < 100 else original
        assert torch.equal(scores[:, c], expected[:, c])


def test_threshold_decides_which_head_scores() -> None:
    logits = random_logits(make())
    assert torch.equal(make(0).probabilities(logits), SoftmaxHead(C).probabilities(logits[:, :6]))
    assert torch.equal(
        make(10**6).probabilities(logits), SoftmaxHead(C).probabilities(logits[:, 6:])
    )


def test_loss_is_the_calibrated_head_s_and_leaves_the_original_alone() -> None:
    head = make()
    logits = random_logits(head).requires_grad_()
    labels = torch.tensor([0, 1, C, 3, 4, C])
    loss = head.loss(logits, labels)
    loss.backward()
    assert torch.equal(loss.detach(), SoftmaxHead(C).loss(logits.detach()[:, 6:], labels))
    assert logits.grad is not None
    assert bool((logits.grad[:, :6] == 0).all())
    assert bool((logits.grad[:, 6:] != 0).all())


def test_the_two_heads_may_be_of_different_kinds() -> None:
    head = CalibratedHead(FocalHead(C), SoftmaxHead(C), COUNTS)
    assert head.num_logits == C + C + 1
    scores = head.probabilities(random_logits(head))
    assert torch.equal(scores[:, 2], random_logits(head)[:, 2].sigmoid())


def test_impossible_pair_of_heads_is_refused() -> None:
    with pytest.raises(ValueError, match="original head has 4 categories and the calibrated one 5"):
        CalibratedHead(SoftmaxHead(4), SoftmaxHead(5), COUNTS)
    with pytest.raises(ValueError, match="instance counts of 4 categories"):
        CalibratedHead(SoftmaxHead(4), SoftmaxHead(4), COUNTS)


def random_episode(size: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = seeded(seed)
    labels = torch.randint(C + 1, (size,), generator=generator)
    labels[torch.rand(size, generator=generator) < 0.4] = C
    return labels, torch.randint(C, (size,), generator=generator)


@thorough
@given(st.integers(0, 40), st.integers(0, 1000))
def test_episode_keeps_its_categories_proposals_and_as_many_of_background(
    size: int, seed: int
) -> None:
    labels, drawn_for = random_episode(size, seed)
    kept = calibration_proposals(labels, C, seeded(seed), drawn_for).tolist()
    wanted, background, others = [], [], []
    for keep, y, c in zip(kept, labels.tolist(), drawn_for.tolist(), strict=True):
        (wanted if y == c else background if y == C else others).append(keep)
    assert all(wanted)
    assert not any(others)
    assert sum(background) == min(len(wanted), len(background))


@thorough
@given(st.integers(0, 40), st.integers(0, 1000))
def test_without_drawn_categories_all_foreground_is_kept(size: int, seed: int) -> None:
    labels, _ = random_episode(size, seed)
    kept = calibration_proposals(labels, C, seeded(seed))
    foreground = labels < C
    assert bool(kept[foreground].all())
    assert int(kept[~foreground].sum()) == min(int(foreground.sum()), int((~foreground).sum()))


def test_background_proposals_are_chosen_uniformly() -> None:
    labels = torch.tensor([1, 1, C, C, C, C, C, C])
    generator, rounds = seeded(), 3000
    kept = torch.stack([calibration_proposals(labels, C, generator) for _ in range(rounds)])
    deviation = math.sqrt(1 / 3 * 2 / 3 / rounds)
    share = kept[:, 2:].double().mean(dim=0)
    assert share.tolist() == pytest.approx([1 / 3] * 6, abs=4 * deviation)


def test_episode_depends_on_its_generator_only() -> None:
    labels, drawn_for = random_episode(60, 1)
    draws = []
    for seed, global_seed in [(0, 1), (0, 2), (5, 1)]:
        torch.manual_seed(global_seed)
        draws.append(calibration_proposals(labels, C, seeded(seed), drawn_for))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_generator_of_another_device_is_refused() -> None:
    elsewhere = SimpleNamespace(device=torch.device("cuda"))  # there may be no such device here
    with pytest.raises(ValueError, match="the generator must be on the CPU, not on cuda"):
        calibration_proposals(torch.tensor([0]), C, elsewhere)  # type: ignore[arg-type]
