"""Two processes, each with a part of the samples, against one process with all of them."""

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from common.balancer import ClassDifficultyBalancer
from common.difficulty import ClassAccuracy, class_accuracy
from common.distributed import (
    all_reduce_sum,
    broadcast_from_first,
    is_distributed,
    rank,
    world_size,
)
from common.losses import REDUCTIONS, Reduction, cross_entropy
from common.sampler import (
    ClassAwareSampler,
    ClassProbabilitySampler,
    EpochSampler,
    InstanceBalancedSampler,
)
from common.streams import Streams
from tests.ranks import on_ranks

RANKS = 2
C = 5
N = 37  # odd: the ranks cannot have equal shares
PERFORMANCE = [0.9, 0.35, math.nan, 0.1, 0.6]
# Samples of each rank. In the second split rank 1 has none; in the first it lacks classes.
SPLITS = {"uneven": [slice(0, 22), slice(22, N)], "one empty": [slice(0, N), slice(N, N)]}
EVEN = [slice(0, 18), slice(18, 36)]


def samples() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(C - 1, (N,), generator=generator).sort().values  # class 4 has none
    return torch.randn(N, 3, generator=generator, dtype=torch.float64), labels


def linear() -> nn.Linear:
    model = nn.Linear(3, C, dtype=torch.float64)
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        nn.init.normal_(parameter, generator=generator)
    return model


def samplers() -> dict[str, EpochSampler]:
    labels = torch.arange(N) % C
    by_difficulty = ClassProbabilitySampler(labels, C, Streams(0)["a"])
    by_difficulty.set_class_probabilities(torch.tensor([0.4, 0.3, 0.1, 0.1, 0.1]))
    return {
        "cdb-s": by_difficulty,
        "class-aware": ClassAwareSampler(labels, C, Streams(0)["b"], samples_per_class=2),
        "instance-balanced": InstanceBalancedSampler(labels, C, Streams(0)["c"]),
    }


def accuracies(share: str) -> Tensor:
    part = SPLITS[share][rank()] if is_distributed() else slice(None)
    images, labels = (values[part] for values in samples())
    batches = zip(images.split(5), labels.split(5), strict=True) if labels.numel() else []
    return class_accuracy(linear(), batches, C)


def balancer_after_update(reduction: Reduction = "batch-size") -> ClassDifficultyBalancer:
    balancer = ClassDifficultyBalancer(C, "logarithmic", reduction=reduction)
    # As rounding might: on rank 1 the numbers differ. Rank 0's must count.
    performance = torch.tensor(PERFORMANCE, dtype=torch.float64) * (1 - 1e-3 * rank())
    balancer.update(performance)
    return balancer


def steadied_balancer() -> ClassDifficultyBalancer:
    balancer = ClassDifficultyBalancer(C, "logarithmic", average=0.5, start_epoch=2)
    for part in (1.0, 0.5, 0.25):
        balancer.update(torch.tensor(PERFORMANCE, dtype=torch.float64) * (part - 1e-3 * rank()))
    return balancer


def gradients(model: nn.Module, reduction: Reduction, part: slice) -> list[Tensor]:
    images, labels = (values[part] for values in samples())
    balancer = balancer_after_update(reduction)
    loss = balancer.weighted_mean(cross_entropy(model(images), labels), labels)
    return list(torch.autograd.grad(loss, list(model.parameters())))


def distributed_gradients(reduction: Reduction, parts: list[slice]) -> list[Tensor]:
    """What DistributedDataParallel leaves in .grad: the mean of the ranks' gradients."""
    model = DistributedDataParallel(linear())
    images, labels = (values[parts[rank()]] for values in samples())
    balancer = balancer_after_update(reduction)
    balancer.weighted_mean(cross_entropy(model(images), labels), labels).backward()
    return [p.grad for p in model.parameters() if p.grad is not None]


def refused_update() -> dict[str, Tensor]:
    balancer = balancer_after_update()
    with pytest.raises(ValueError, match="outside"):
        balancer.update(torch.full((C,), 2.0))
    return copy.deepcopy(balancer.state_dict())


def refused_for_all() -> dict[str, str]:
    """What one rank alone knows is refused on every rank, and none waits for another."""
    said = {}
    with pytest.raises(ValueError, match="no class was measured") as refused:
        # Rank 1's numbers do not count.
        ClassDifficultyBalancer(C).update([0.5 if rank() else math.nan] * C)
    said["nothing measured"] = str(refused.value)
    logits = torch.full((1, C), math.nan if rank() else 0.0)
    with pytest.raises(ValueError, match="NaN for 1 of the samples") as refused:
        class_accuracy(nn.Identity(), [(logits, [0])], C)
    said["NaN"] = str(refused.value)
    return said


def many_losses_of_low_precision() -> dict[str, float]:
    balancer = ClassDifficultyBalancer(C)
    losses, labels = torch.full((40_000,), 2.0, dtype=torch.float16), torch.zeros(40_000).long()
    return {"batch-size": float(balancer.weighted_mean(losses, labels))}


def ignored_losses() -> list[float]:
    """Rank 0 has 2 pixels that count, rank 1 none: [1, 3] of one process."""
    labels = [255, 255] if rank() else [0, 1]
    losses = torch.tensor([1.0, 3.0])
    return [
        float(ClassDifficultyBalancer(C, reduction=r).weighted_mean(losses, labels, 255))
        for r in REDUCTIONS
    ]


def measure_on_this_rank() -> dict[str, Any]:
    counted = ClassAccuracy(C)
    counted.add(torch.full((1 + rank(),), rank()), torch.zeros(1 + rank(), dtype=torch.int64))
    counted.compute()
    return {
        "rank": (rank(), world_size(), is_distributed()),
        "sum": all_reduce_sum(torch.tensor([1.0, 10.0 * rank()])),
        "first": broadcast_from_first(torch.tensor([7.0 + rank()])),
        "computed twice": counted.compute(),
        "accuracy": {share: accuracies(share) for share in SPLITS},
        "balancer": balancer_after_update().state_dict(),
        "steadied": steadied_balancer().state_dict(),
        "refused": refused_update(),
        "refused for all": refused_for_all(),
        "low precision": many_losses_of_low_precision(),
        "ignored": ignored_losses(),
        "even gradients": {r: distributed_gradients(r, EVEN) for r in REDUCTIONS},
        "uneven gradients": {
            r: distributed_gradients(r, SPLITS["uneven"]) for r in ("weight-sum", "sum")
        },
        "draws": {
            name: [torch.tensor(list(sampler)) for _ in range(2)] + [torch.tensor(len(sampler))]
            for name, sampler in samplers().items()
        },
    }


Results = list[dict[str, Any]]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return on_ranks(RANKS, tmp_path_factory.mktemp("ranks"), measure_on_this_rank)


def assert_equal_or_both_nan(first: Tensor, second: Tensor) -> None:
    torch.testing.assert_close(first, second, rtol=0, atol=0, equal_nan=True)


def assert_all_close(first: list[Tensor], second: list[Tensor]) -> None:
    assert len(first) == len(second) == 2
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


def test_without_process_group_there_is_one_rank() -> None:
    values = torch.tensor([1.0, 2.0])
    assert (rank(), world_size(), is_distributed()) == (0, 1, False)
    for result in (all_reduce_sum(values), broadcast_from_first(values)):
        assert torch.equal(result, values)
        assert result.data_ptr() != values.data_ptr()


def test_ranks_know_each_other(both: Results) -> None:
    assert [result["rank"] for result in both] == [(0, 2, True), (1, 2, True)]


def test_sum_and_broadcast_are_the_same_on_both_ranks(both: Results) -> None:
    for result in both:
        assert result["sum"].tolist() == [2.0, 10.0]
        assert result["first"].tolist() == [7.0]


@pytest.mark.parametrize("share", SPLITS)
def test_class_accuracy_of_the_parts_equals_one_process(both: Results, share: str) -> None:
    expected = accuracies(share)
    assert expected.isnan().tolist() == [False] * 4 + [True]
    assert 0 < float(expected[:4].mean()) < 1
    for result in both:
        assert_equal_or_both_nan(result["accuracy"][share], expected)


def test_computing_the_accuracy_twice_counts_no_sample_twice(both: Results) -> None:
    # Rank 0: one sample, right. Rank 1: two samples, wrong.
    for result in both:
        assert float(result["computed twice"][0]) == pytest.approx(1 / 3)


def test_ranks_hold_the_same_balancer_as_one_process(both: Results) -> None:
    for kind, one in (("balancer", balancer_after_update()), ("steadied", steadied_balancer())):
        expected = one.state_dict()
        for result in both:
            assert result[kind].keys() == expected.keys()
            for name, value in expected.items():
                assert_equal_or_both_nan(result[kind][name], value)


def test_refused_update_leaves_both_ranks_unchanged(both: Results) -> None:
    for result in both:
        for name, value in result["balancer"].items():
            assert_equal_or_both_nan(result["refused"][name], value)


def test_what_one_rank_alone_knows_is_refused_on_both(both: Results) -> None:
    assert both[0]["refused for all"] == both[1]["refused for all"]


def test_mean_of_many_losses_of_low_precision_is_finite_on_both_ranks(both: Results) -> None:
    assert [result["low precision"]["batch-size"] for result in both] == [2.0, 2.0]


def test_ignored_pixels_count_on_no_rank(both: Results) -> None:
    # The mean of the ranks' losses is that of one process: 2 by size and by weights, 4 summed.
    first, second = (torch.tensor(result["ignored"]) for result in both)
    assert ((first + second) / 2).tolist() == [2.0, 2.0, 4.0]


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_mean_of_the_ranks_gradients_equals_one_process(
    both: Results, reduction: Reduction
) -> None:
    expected = gradients(linear(), reduction, slice(0, 36))
    for result in both:
        assert_all_close(result["even gradients"][reduction], expected)


@pytest.mark.parametrize("reduction", ["weight-sum", "sum"])
def test_mean_of_the_gradients_of_uneven_batches_equals_one_process(
    both: Results, reduction: Reduction
) -> None:
    expected = gradients(linear(), reduction, slice(None))
    for result in both:
        assert_all_close(result["uneven gradients"][reduction], expected)


@pytest.mark.parametrize("name", samplers())
def test_shares_of_the_ranks_together_are_the_draw_of_one_process(both: Results, name: str) -> None:
    alone = samplers()[name]
    for epoch in range(2):
        whole = alone.draw()
        shares = [result["draws"][name][epoch] for result in both]
        assert [share.numel() for share in shares] == [19, 19]
        together = torch.stack(shares, dim=1).flatten()
        assert torch.equal(together[:N], whole)
        assert together[N] == whole[0]  # N is odd: the first index fills up


@pytest.mark.parametrize("name", samplers())
def test_length_of_a_sampler_is_the_rank_s_share(both: Results, name: str) -> None:
    assert [int(result["draws"][name][2]) for result in both] == [19, 19]
