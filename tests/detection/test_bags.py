import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from detection.heads import BagsHead
from detection.heads.base import keep_at_most

# Bins of the categories 0..6: [10, 100), 1000 and more, under 10, [100, 1000), under 10, ...
COUNTS = [99, 1000, 9, 100, 0, 26148, 10]
BINS = [[2, 4], [0, 6], [3], [1, 5]]
C = len(COUNTS)
thorough = settings(deadline=None, max_examples=40, derandomize=True)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make(beta: float = 8.0, counts: list[int] = COUNTS, seed: int = 0) -> BagsHead:
    return BagsHead(len(counts), torch.tensor(counts), beta, generator=seeded(seed))


def batch(size: int, seed: int = 0, background: float = 0.5) -> tuple[Tensor, Tensor]:
    generator = seeded(seed)
    logits = 2 * torch.randn(size, C + len(BINS) + 2, generator=generator, dtype=torch.float64)
    labels = torch.randint(C, (size,), generator=generator)
    labels[torch.rand(size, generator=generator) < background] = C
    return logits, labels


def slow_cross_entropy(z: list[float], place: int) -> float:
    return math.log(sum(math.exp(value) for value in z)) - z[place]


def slow_kept(labels: list[int], draws: list[float], members: list[int], beta: float) -> list[int]:
    foreground = [i for i, y in enumerate(labels) if y in members]
    others = [i for i, y in enumerate(labels) if y not in members]
    others.sort(key=lambda i: draws[i])
    return sorted(foreground + others[: math.floor(beta * len(foreground))])


def slow_loss(logits: Tensor, labels: list[int], draws: Tensor, beta: float) -> float:
    rows, total = logits.tolist(), 0.0
    for g, members in enumerate(BINS):
        kept = slow_kept(labels, draws[:, g].tolist(), members, beta)
        losses = []
        for i in kept:
            z = [rows[i][c] for c in members] + [rows[i][C + g]]
            y = labels[i]
            losses.append(slow_cross_entropy(z, members.index(y) if y in members else -1))
        total += sum(losses) / len(losses) if losses else 0.0
    pairs = zip(rows, labels, strict=True)
    last = [slow_cross_entropy(z[-2:], 0 if y == C else 1) for z, y in pairs]
    return total + sum(last) / len(last)


@thorough
@given(st.integers(1, 30), st.sampled_from([0.0, 0.5, 1.0, 2.5, 8.0, 100.0]), st.integers(0, 1000))
def test_grouped_softmax_agrees_with_its_definition(size: int, beta: float, seed: int) -> None:
    head = make(beta)
    logits, labels = batch(size, seed, background=0.2 + 0.6 * (seed % 2))
    draws = head.draw(size)
    expected = slow_loss(logits, labels.tolist(), draws, beta)
    assert float(head.loss(logits, labels, draws)) == pytest.approx(expected)


def test_logits_are_the_categories_an_others_a_bin_background_and_foreground() -> None:
    assert make().num_logits == C + 4 + 2


def test_bin_without_category_is_left_out() -> None:
    head = make(counts=[5, 2000, 3])
    assert head.num_logits == 3 + 2 + 2
    scores = head.probabilities(torch.zeros(1, 7))
    assert scores.tolist() == [pytest.approx([1 / 6, 1 / 4, 1 / 6])]


def test_edges_are_where_the_next_bin_begins() -> None:
    at, below = torch.tensor([10, 5]), torch.tensor([9, 5])
    assert BagsHead(2, at, generator=seeded()).num_logits == 2 + 2 + 2
    assert BagsHead(2, below, generator=seeded()).num_logits == 2 + 1 + 2
    assert BagsHead(2, at, generator=seeded(), edges=(11,)).num_logits == 2 + 1 + 2


@thorough
@given(st.integers(1, 5), st.integers(0, 1000))
def test_scores_are_softmax_in_the_bin_times_foreground(size: int, seed: int) -> None:
    logits, _ = batch(size, seed)
    scores = make().probabilities(logits).tolist()
    for z, score in zip(logits.tolist(), scores, strict=True):
        foreground = math.exp(z[-1]) / (math.exp(z[-2]) + math.exp(z[-1]))
        for g, members in enumerate(BINS):
            total = sum(math.exp(z[c]) for c in members) + math.exp(z[C + g])
            for c in members:
                assert score[c] == pytest.approx(math.exp(z[c]) / total * foreground)


@thorough
@given(st.integers(0, 40), st.sampled_from([0.0, 0.4, 1.0, 8.0]), st.integers(0, 1000))
def test_foreground_of_a_bin_is_kept_with_at_most_beta_others_each(
    size: int, beta: float, seed: int
) -> None:
    head = make(beta)
    _, labels = batch(size, seed)
    kept = head.kept(labels, head.draw(size))
    for g, members in enumerate(BINS):
        own = torch.isin(labels, torch.tensor(members))
        others = min(math.floor(beta * int(own.sum())), int((~own).sum()))
        assert bool(kept[own, g].all())
        assert int(kept[~own, g].sum()) == others


def test_others_are_chosen_uniformly_among_the_proposals_of_no_category_of_the_bin() -> None:
    labels = torch.tensor([2, 0, 1, 3, C, C, C])  # in the first bin one foreground, six others
    head, rounds = make(beta=2.0), 3000
    kept = torch.stack([head.kept(labels, head.draw(7))[:, 0] for _ in range(rounds)]).double()
    assert float(kept[:, 0].mean()) == 1
    deviation = math.sqrt(1 / 3 * 2 / 3 / rounds)  # each of the six in 1/3 of the rounds
    assert kept[:, 1:].mean(dim=0).tolist() == pytest.approx([1 / 3] * 6, abs=4 * deviation)


def test_bin_without_foreground_adds_nothing() -> None:
    logits, labels = batch(12)
    labels = torch.full_like(labels, C)
    rows = logits[:, -2:].softmax(dim=1)
    assert float(make().loss(logits, labels)) == pytest.approx(float(-rows[:, 0].log().mean()))


def test_category_without_instance_is_in_the_first_bin() -> None:
    logits, _ = batch(3)
    changed = logits.clone()
    changed[:, 4] += 1.0  # category 4 has no instance, category 2 has 9
    before, after = make().probabilities(logits), make().probabilities(changed)
    assert (before != after).all(dim=0).tolist() == [c in (2, 4) for c in range(C)]


def test_choice_of_others_changes_from_step_to_step() -> None:
    head, (logits, labels) = make(beta=1.0), batch(40, background=0.8)
    assert float(head.loss(logits, labels)) != float(head.loss(logits, labels))


def test_resumed_head_goes_on_bit_for_bit_whatever_the_number_of_proposals() -> None:
    head = make(beta=1.0)
    for size in (3, 50):
        head.loss(*batch(size, background=0.8))
    state = head.generator.get_state()
    rest = [batch(40, seed, background=0.8) for seed in range(3)]
    expected = [head.loss(*one) for one in rest]
    resumed = make(beta=1.0, seed=7)
    resumed.generator.set_state(state)
    assert [float(resumed.loss(*one)) for one in rest] == [float(loss) for loss in expected]


def test_head_leaves_the_global_random_numbers_untouched() -> None:
    state = torch.get_rng_state()
    head, one = make(beta=1.0), batch(20)
    head.loss(*one)
    assert torch.equal(torch.get_rng_state(), state)


def test_impossible_groups_are_refused() -> None:
    counts = torch.tensor(COUNTS)
    with pytest.raises(ValueError, match="beta must be at least 0"):
        make(beta=-1.0)
    with pytest.raises(ValueError, match="instance counts of 3 categories"):
        BagsHead(3, counts, generator=seeded())
    with pytest.raises(ValueError, match="instance counts must be at least 0"):
        make(counts=[1, -1])
    with pytest.raises(ValueError, match="edges must ascend"):
        BagsHead(C, counts, generator=seeded(), edges=(10, 10))
    elsewhere = SimpleNamespace(device=torch.device("cuda"))  # there may be no such device here
    with pytest.raises(ValueError, match="the generator must be on the CPU, not on cuda"):
        BagsHead(C, counts, generator=elsewhere)  # type: ignore[arg-type]


@thorough
@given(st.integers(0, 20), st.integers(0, 25), st.integers(0, 1000))
def test_keep_at_most_keeps_the_candidates_with_the_smallest_numbers(
    size: int, limit: int, seed: int
) -> None:
    draws = torch.rand(size, 1, generator=seeded(seed))
    candidates = torch.rand(size, 1, generator=seeded(seed + 1)) < 0.6
    kept = keep_at_most(candidates, torch.tensor([limit]), draws)[:, 0]
    order = sorted((i for i in range(size) if candidates[i]), key=lambda i: float(draws[i]))
    assert kept.nonzero()[:, 0].tolist() == sorted(order[:limit])
