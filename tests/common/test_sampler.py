import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler, TensorDataset

import common.sampler as sampler_module
from common.sampler import (
    ClassAwareSampler,
    ClassProbabilitySampler,
    EpochSampler,
    InstanceBalancedSampler,
    frequency_probabilities,
)

thorough = settings(deadline=None, max_examples=40, derandomize=True)
SAMPLERS = [ClassProbabilitySampler, ClassAwareSampler, InstanceBalancedSampler]
EPOCHS = 3


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def shuffled_labels(counts: list[int], seed: int = 0) -> Tensor:
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    return labels[torch.randperm(labels.numel(), generator=seeded(seed))]


def chi_square_p(observed: Tensor, probabilities: list[float]) -> float:
    expected = [p * float(observed.sum()) for p in probabilities]
    return float(chisquare(observed.tolist(), expected).pvalue)


@thorough
@given(st.lists(st.integers(1, 5000), min_size=1, max_size=6), st.floats(0, 1))
def test_frequency_probabilities_are_powers_of_the_counts(counts: list[int], q: float) -> None:
    total = sum(n**q for n in counts)
    probabilities = frequency_probabilities(torch.tensor(counts), q)
    assert probabilities.tolist() == pytest.approx([n**q / total for n in counts])
    assert float(probabilities.sum()) == pytest.approx(1)


def test_frequency_probabilities_at_the_two_ends_are_natural_and_balanced() -> None:
    counts = torch.tensor([90, 10])
    assert frequency_probabilities(counts, q=1.0).tolist() == pytest.approx([0.9, 0.1])
    assert frequency_probabilities(counts, q=0.0).tolist() == pytest.approx([0.5, 0.5])
    assert frequency_probabilities(counts).tolist() == pytest.approx([0.75, 0.25])


@pytest.mark.parametrize("probabilities", [[0.7, 0.2, 0.1], [0.05, 0.05, 0.9], [1 / 3] * 3])
def test_classes_are_drawn_with_the_given_probabilities(probabilities: list[float]) -> None:
    labels = shuffled_labels([30000, 900, 100])
    sampler = ClassProbabilitySampler(labels, 3, seeded(1))
    sampler.set_class_probabilities(torch.tensor(probabilities))
    observed = labels[sampler.draw()].bincount(minlength=3)
    assert chi_square_p(observed, probabilities) > 1e-3


def test_classes_are_equally_likely_before_any_probabilities_are_set() -> None:
    labels = shuffled_labels([30000, 900, 100])
    observed = labels[ClassProbabilitySampler(labels, 3, seeded(2)).draw()].bincount()
    assert chi_square_p(observed, [1 / 3] * 3) > 1e-3


def test_samples_of_a_class_are_drawn_uniformly() -> None:
    labels = shuffled_labels([19990, 10])
    sampler = ClassProbabilitySampler(labels, 2, seeded(3))
    drawn = sampler.draw()
    observed = drawn[labels[drawn] == 1].bincount(minlength=20000)[labels == 1]
    assert chi_square_p(observed, [0.1] * 10) > 1e-3


def test_chi_square_would_notice_other_probabilities() -> None:
    labels = shuffled_labels([30000, 900, 100])
    observed = labels[ClassProbabilitySampler(labels, 3, seeded(1)).draw()].bincount(minlength=3)
    assert chi_square_p(observed, [0.35, 0.33, 0.32]) < 1e-3


@pytest.mark.parametrize("never", [0, 1, 2])
def test_class_of_probability_0_is_never_drawn(never: int) -> None:
    probabilities = torch.full((3,), 0.5)
    probabilities[never] = 0
    labels = shuffled_labels([400, 300, 300])
    sampler = ClassProbabilitySampler(labels, 3, seeded())
    sampler.set_class_probabilities(probabilities)
    drawn = labels[torch.cat([sampler.draw() for _ in range(20)])].bincount(minlength=3)
    assert drawn[never] == 0
    assert int((drawn > 0).sum()) == 2


@pytest.mark.parametrize("number", [0.0, 1 - 2**-53])
def test_class_of_probability_0_is_not_drawn_at_either_end_of_the_random_numbers(
    monkeypatch: pytest.MonkeyPatch, number: float
) -> None:
    sampler = ClassProbabilitySampler(torch.arange(4), 4, seeded())
    sampler.set_class_probabilities(torch.tensor([0.0, 0.3, 0.7, 0.0]))
    monkeypatch.setattr(
        torch,
        "rand",
        lambda *shape, generator, dtype: torch.full(shape, number, dtype=dtype),
    )
    assert set(sampler.draw().tolist()) == {1 if number == 0 else 2}


def test_class_probabilities_are_scaled_to_sum_1() -> None:
    sampler = ClassProbabilitySampler(shuffled_labels([2, 2]), 2, seeded())
    sampler.set_class_probabilities(torch.tensor([1.0, 3.0]))
    assert sampler.probabilities.tolist() == [0.25, 0.75]


@pytest.mark.parametrize(
    "wrong",
    [
        [0.5, 0.5, 0.0],
        [1.0],
        [-0.1, 1.1],
        [math.nan, 1.0],
        [math.inf, 1.0],
        [0.0, 0.0],
        [1.7e308, 1.7e308],
    ],
)
def test_impossible_class_probabilities_are_refused_and_change_nothing(wrong: list[float]) -> None:
    sampler = ClassProbabilitySampler(shuffled_labels([2, 2]), 2, seeded())
    sampler.set_class_probabilities(torch.tensor([0.25, 0.75]))
    with pytest.raises(ValueError, match="class probabilities"):
        sampler.set_class_probabilities(torch.tensor(wrong, dtype=torch.float64))
    assert sampler.probabilities.tolist() == [0.25, 0.75]


@thorough
@given(
    st.lists(st.integers(1, 7), min_size=1, max_size=5),
    st.integers(1, 5),
    st.integers(0, 1000),
)
def test_class_aware_sampler_visits_every_class_once_a_round(
    counts: list[int], samples_per_class: int, seed: int
) -> None:
    labels = shuffled_labels(counts, seed)
    sampler = ClassAwareSampler(labels, len(counts), seeded(seed), samples_per_class)
    for _ in range(EPOCHS):
        drawn = labels[sampler.draw()].tolist()
        assert len(drawn) == sum(counts)
        visited: list[int] = []
        for start in range(0, len(drawn), samples_per_class):
            visit = set(drawn[start : start + samples_per_class])
            assert len(visit) == 1  # a visit takes samples of one class only
            visited += visit
        for start in range(0, len(visited), len(counts)):
            in_round = visited[start : start + len(counts)]
            assert len(set(in_round)) == len(in_round)


@thorough
@given(
    st.lists(st.integers(1, 7), min_size=1, max_size=4),
    st.integers(1, 3),
    st.integers(0, 1000),
)
def test_class_aware_sampler_uses_up_a_class_s_list_before_shuffling_it_again(
    counts: list[int], samples_per_class: int, seed: int
) -> None:
    # Lists run on from epoch to epoch; whole rounds make the epochs, so that nothing is cut off.
    counts[0] += -sum(counts) % (len(counts) * samples_per_class)
    labels = shuffled_labels(counts, seed)
    sampler = ClassAwareSampler(labels, len(counts), seeded(seed), samples_per_class)
    drawn = [i for _ in range(EPOCHS) for i in sampler.draw().tolist()]
    for c, count in enumerate(counts):
        of_class = [i for i in drawn if labels[i] == c]
        for start in range(0, len(of_class), count):
            one_list = of_class[start : start + count]
            assert len(set(one_list)) == len(one_list)


def test_class_aware_sampler_visits_the_classes_in_changing_order() -> None:
    labels = shuffled_labels([20000, 5000, 5000])
    drawn = labels[ClassAwareSampler(labels, 3, seeded(4)).draw()].view(-1, 3)
    orders = drawn[:, 0] * 3 + drawn[:, 1]  # the first two tell the third
    observed = orders.bincount(minlength=9)
    assert chi_square_p(observed[observed > 0], [1 / 6] * 6) > 1e-3


def test_class_aware_sampler_draws_every_class_equally_often() -> None:
    labels = shuffled_labels([900, 90, 10])
    drawn = labels[ClassAwareSampler(labels, 3, seeded()).draw()].bincount()
    assert drawn.sum() == 1000
    assert drawn.max() - drawn.min() <= 1


def test_samples_per_class_changes_the_draw() -> None:
    labels = shuffled_labels([30, 30])
    drawn = [labels[ClassAwareSampler(labels, 2, seeded(), k).draw()].tolist() for k in (1, 4)]
    assert drawn[0] != drawn[1]


@pytest.mark.parametrize("samples_per_class", [0, -1])
def test_visit_without_samples_is_refused(samples_per_class: int) -> None:
    with pytest.raises(ValueError, match="samples_per_class must be at least 1"):
        ClassAwareSampler(shuffled_labels([2, 2]), 2, seeded(), samples_per_class)


def test_instance_balanced_sampler_draws_every_sample_once_in_changing_order() -> None:
    sampler = InstanceBalancedSampler(shuffled_labels([40, 10]), 2, seeded())
    first, second = sampler.draw(), sampler.draw()
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(50))
    assert not torch.equal(first, second)


@pytest.mark.parametrize("kind", SAMPLERS)
def test_sampler_leaves_the_global_random_numbers_untouched(kind: type[EpochSampler]) -> None:
    state = torch.get_rng_state()
    sampler = kind(shuffled_labels([20, 5]), 2, seeded())
    state_after_labels = torch.get_rng_state()
    sampler.draw()
    assert torch.equal(state, state_after_labels)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("kind", SAMPLERS)
def test_draws_depend_on_the_sampler_s_own_generator_only(kind: type[EpochSampler]) -> None:
    labels = shuffled_labels([200, 50])
    draws = []
    for seed, global_seed in [(0, 1), (0, 2), (5, 1)]:
        torch.manual_seed(global_seed)
        draws.append(kind(labels, 2, seeded(seed)).draw())
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


@pytest.mark.parametrize("kind", SAMPLERS)
def test_epochs_differ_from_each_other(kind: type[EpochSampler]) -> None:
    sampler = kind(shuffled_labels([200, 50]), 2, seeded())
    assert not torch.equal(sampler.draw(), sampler.draw())


@pytest.mark.parametrize("kind", SAMPLERS)
def test_draw_holds_valid_indices_as_many_as_training_samples(kind: type[EpochSampler]) -> None:
    drawn = kind(shuffled_labels([30, 7]), 2, seeded()).draw()
    assert drawn.dtype == torch.int64
    assert drawn.shape == (37,)
    assert 0 <= int(drawn.min()) <= int(drawn.max()) < 37


def make_unequal(labels: Tensor, seed: int) -> ClassProbabilitySampler:
    sampler = ClassProbabilitySampler(labels, 3, seeded(seed))
    sampler.set_class_probabilities(torch.tensor([0.1, 0.2, 0.4]))
    return sampler


@pytest.mark.parametrize(
    ("make", "fresh"),
    [
        (
            lambda labels, seed: ClassAwareSampler(labels, 3, seeded(seed), 2),
            lambda labels, seed: ClassAwareSampler(labels, 3, seeded(seed), 2),
        ),
        (make_unequal, lambda labels, seed: ClassProbabilitySampler(labels, 3, seeded(seed))),
    ],
)
def test_resumed_sampler_continues_bit_for_bit(
    make: Callable[[Tensor, int], EpochSampler], fresh: Callable[[Tensor, int], EpochSampler]
) -> None:
    labels = shuffled_labels([40, 9, 4])
    sampler = make(labels, 0)
    sampler.draw()
    state, generator_state = sampler.state_dict(), sampler.generator.get_state()
    expected = [sampler.draw() for _ in range(EPOCHS)]

    resumed = fresh(labels, 7)
    resumed.generator.set_state(generator_state)
    assert not torch.equal(resumed.draw(), expected[0])  # the generator alone is not enough

    resumed = fresh(labels, 7)
    resumed.load_state_dict(state)
    resumed.generator.set_state(generator_state)
    assert all(torch.equal(resumed.draw(), indices) for indices in expected)


@pytest.mark.parametrize("classes", [2, 50])
def test_class_aware_state_is_two_tensors_however_many_classes_there_are(classes: int) -> None:
    sampler = ClassAwareSampler(shuffled_labels([3] * (classes - 1) + [40]), classes, seeded())
    assert [t.tolist() for t in sampler.state_dict()["left"]] == [[]]
    sampler.draw()
    state = sampler.state_dict()
    assert [(name, len(tensors)) for name, tensors in state.items()] == [
        ("left", 1),
        ("lengths", 1),
    ]
    assert state["lengths"][0].shape == (classes,)
    assert state["left"][0].numel() == int(state["lengths"][0].sum()) > 0


def test_restored_class_probabilities_are_the_same_to_the_last_bit() -> None:
    labels = shuffled_labels([40, 9, 4])
    for seed in range(50):
        sampler = ClassProbabilitySampler(labels, 3, seeded())
        sampler.set_class_probabilities(torch.rand(3, generator=seeded(seed)))
        restored = ClassProbabilitySampler(labels, 3, seeded())
        restored.load_state_dict(sampler.state_dict())
        assert torch.equal(restored.probabilities, sampler.probabilities)


@pytest.mark.parametrize("kind", SAMPLERS)
def test_data_loader_takes_the_sampler_as_it_is(kind: type[EpochSampler]) -> None:
    labels = shuffled_labels([30, 7])
    data = TensorDataset(torch.arange(37), labels)
    loader = DataLoader(data, batch_size=8, sampler=kind(labels, 2, seeded()))
    batches = list(loader)
    assert len(batches) == len(loader) == 5
    indices = torch.cat([batch[0] for batch in batches])
    assert torch.equal(indices, kind(labels, 2, seeded()).draw())


@pytest.mark.parametrize("kind", SAMPLERS)
@pytest.mark.parametrize("label", [-1, 2])
def test_sampler_refuses_a_label_out_of_range(kind: type[EpochSampler], label: int) -> None:
    with pytest.raises(ValueError, match=rf"label {label} is outside 0\.\.1"):
        kind(torch.tensor([0, 1, label]), 2, seeded())


@pytest.mark.parametrize("kind", SAMPLERS)
def test_sampler_refuses_a_class_without_sample_and_names_it(kind: type[EpochSampler]) -> None:
    with pytest.raises(ValueError, match="class 1 has no training sample"):
        kind(torch.tensor([0, 2, 2]), 3, seeded())


@pytest.mark.parametrize("kind", SAMPLERS)
def test_sampler_works_for_a_single_class(kind: type[EpochSampler]) -> None:
    drawn = kind(torch.zeros(6, dtype=torch.int64), 1, seeded()).draw()
    assert drawn.shape == (6,)


@pytest.mark.parametrize("samples", [1, 2, 7, 8])
@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
def test_ranks_get_equal_shares_that_cover_the_draw(
    monkeypatch: pytest.MonkeyPatch, samples: int, ranks: int
) -> None:
    labels = torch.zeros(samples, dtype=torch.int64)
    whole = InstanceBalancedSampler(labels, 1, seeded()).draw().tolist()
    monkeypatch.setattr(sampler_module, "world_size", lambda: ranks)
    shares = []
    for r in range(ranks):
        monkeypatch.setattr(sampler_module, "rank", lambda r=r: r)
        sampler = InstanceBalancedSampler(labels, 1, seeded())
        shares.append(sampler.draw_for_rank().tolist())
        assert len(shares[-1]) == len(sampler) == math.ceil(samples / ranks)
    together = [index for step in zip(*shares, strict=True) for index in step]
    assert together[:samples] == whole
    assert set(together) == set(whole)


class SharedAgain(DistributedSampler[int]):
    """As Lightning's wrapper: takes every W-th of what the sampler inside gives."""

    def __init__(self, inside: EpochSampler, ranks: int) -> None:
        super().__init__(range(len(inside)), num_replicas=ranks, rank=0, shuffle=False)
        self.inside = inside

    def __iter__(self) -> Iterator[int]:
        indices = list(self.inside)
        return (indices[place] for place in super().__iter__())


class SharedBatches(BatchSampler):
    """As Accelerate's shard: takes every W-th batch of the batch sampler inside."""

    def __init__(self, inside: BatchSampler, ranks: int) -> None:
        self.batch_sampler, self.num_processes = inside, ranks

    def _iter_with_no_split(self) -> Iterator[list[int]]:
        for number, batch in enumerate(self.batch_sampler):
            if number % self.num_processes == 0:
                yield batch

    def __iter__(self) -> Iterator[list[int]]:
        return self._iter_with_no_split()


def loader_of(kind: str, sampler: EpochSampler, ranks: int) -> DataLoader[Any]:
    data = TensorDataset(torch.arange(472))
    if kind == "sampler":
        return DataLoader(data, batch_size=4, sampler=SharedAgain(sampler, ranks))
    return DataLoader(data, batch_sampler=SharedBatches(BatchSampler(sampler, 4, False), ranks))


@pytest.mark.parametrize("kind", ["sampler", "batches"])
def test_share_that_another_sampler_shares_again_is_refused(kind: str) -> None:
    labels = shuffled_labels([400, 60, 12])
    sampler = ClassProbabilitySampler(labels, 3, seeded(), rank=1, world_size=2)
    with pytest.raises(RuntimeError, match=r"Shared\w+ shares it again: .*rank=0, world_size=1"):
        next(iter(loader_of(kind, sampler, ranks=2)))
    assert sum(len(batch) for (batch,) in loader_of(kind, sampler, ranks=1)) == 236


@pytest.mark.parametrize("kind", ["sampler", "batches"])
def test_whole_draw_may_be_shared_by_another_sampler(kind: str) -> None:
    labels = shuffled_labels([400, 60, 12])
    sampler = ClassProbabilitySampler(labels, 3, seeded(), rank=0, world_size=1)
    loader = loader_of(kind, sampler, ranks=2)
    sampler.set_class_probabilities(torch.tensor([0.0, 0.0, 1.0]))
    drawn = torch.cat([batch for (batch,) in loader])
    assert drawn.numel() == 236
    assert labels[drawn].unique().tolist() == [2]


@pytest.mark.parametrize("kind", SAMPLERS)
def test_rank_and_world_size_may_be_given(kind: Any) -> None:
    labels = shuffled_labels([400, 60, 12])
    whole = kind(labels, 3, seeded(), rank=0, world_size=1)
    assert len(whole) == 472
    shares = [kind(labels, 3, seeded(), rank=r, world_size=2) for r in range(2)]
    assert [len(share) for share in shares] == [236, 236]
    together = torch.stack([share.draw_for_rank() for share in shares], dim=1).flatten()
    assert torch.equal(together, whole.draw())


@pytest.mark.parametrize("place", [{"rank": 0}, {"world_size": 2}, {"rank": 2, "world_size": 2}])
def test_rank_that_is_none_of_the_world_size_is_refused(place: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="rank and world_size belong together"):
        InstanceBalancedSampler(torch.tensor([0, 1]), 2, seeded(), **place)


@pytest.mark.parametrize("kind", SAMPLERS)
def test_sampler_without_a_generator_of_its_own_is_refused(kind: Any) -> None:
    with pytest.raises(TypeError, match=r"generator must be a torch\.Generator of its own"):
        kind(torch.tensor([0, 1]), 2, None)


@pytest.mark.parametrize("kind", SAMPLERS)
def test_labels_may_be_a_list_an_array_or_of_any_integer_type(kind: Any) -> None:
    labels = shuffled_labels([20, 5])
    expected = kind(labels, 2, seeded()).draw()
    for given_labels in (labels.tolist(), labels.numpy().astype(np.uint8), labels.to(torch.int16)):
        assert torch.equal(kind(given_labels, 2, seeded()).draw(), expected)


@pytest.mark.parametrize("kind", SAMPLERS)
def test_labels_of_two_dimensions_are_refused(kind: Any) -> None:
    with pytest.raises(ValueError, match=r"labels of shape \(N,\), got shape \(2, 1\)"):
        kind(torch.tensor([[0], [1]]), 2, seeded())


def test_instance_balanced_draw_is_that_of_the_sampler_of_that_name() -> None:
    labels = shuffled_labels([9, 4, 1])
    sampler = ClassProbabilitySampler(labels, 3, seeded(4))
    sampler.set_instance_balanced()
    other = InstanceBalancedSampler(labels, 3, seeded(4))
    for _ in range(2):
        assert torch.equal(sampler.draw(), other.draw())
    sampler.set_class_probabilities(torch.tensor([0.0, 0.0, 1.0]))
    assert labels[sampler.draw()].tolist() == [2] * 14


def test_restored_sampler_is_instance_balanced_where_the_saved_one_was() -> None:
    labels = shuffled_labels([9, 4, 1])
    sampler, restored = (ClassProbabilitySampler(labels, 3, seeded(4)) for _ in range(2))
    sampler.set_instance_balanced()
    restored.load_state_dict(sampler.state_dict())
    assert torch.equal(sampler.draw(), restored.draw())
    sampler.set_class_probabilities(torch.tensor([0.5, 0.25, 0.25]))
    restored.load_state_dict(sampler.state_dict())
    assert torch.equal(sampler.draw(), restored.draw())
