import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

import common.losses as losses_module
import detection.heads.bags as bags_module
import detection.heads.sigmoid as sigmoid_module
from common.balancer import ClassDifficultyBalancer
from common.losses import REDUCTIONS, Reduction
from detection.heads import (
    BagsHead,
    CalibratedHead,
    ClassificationHead,
    EqlHead,
    FocalHead,
    Reduce,
    SoftmaxHead,
    lrw_class_weights,
)
from detection.heads.base import step_draws
from detection.heads.sigmoid import FOCAL_DIVISORS, FocalDivisor
from detection.methods import METHODS
from tests.detection.heads import HEAD_METHODS, make_head, mean_by_class

C = 4
COUNTS = torch.tensor([5000, 300, 40, 2])
SHARES = torch.tensor([0.5, 0.01, 0.001, 0.0001])
WEIGHTS = torch.tensor([0.2, 0.6, 1.2, 2.0])
FOREGROUND_ONLY, BACKGROUND_ONLY = [0, 1, 2, 3, 3], [C] * 5
MIXED = [0, 3, C, 1, C, C, 2, 0]
thorough = settings(deadline=None, max_examples=40, derandomize=True)
numbers = st.floats(-8, 8, allow_nan=False)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def weighted_by(class_weights: Tensor, reduction: Reduction = "batch-size") -> Reduce:
    """As a balancer with these weights reduces."""
    with_background = torch.cat([class_weights, class_weights.new_ones(1)])
    return partial(mean_by_class, with_background, reduction)


def build(
    method: str, seed: int = 0, reduction: Reduction = "batch-size", **options: object
) -> ClassificationHead:
    arguments: dict[str, object] = {
        "reduce": weighted_by(WEIGHTS, reduction),
        "reduction": reduction,
        "instance_counts": COUNTS,
        "image_share": SHARES,
        "generator": seeded(seed),
    }
    return make_head(method, C, **(arguments | options))  # type: ignore[arg-type]


def batch(head: ClassificationHead, labels: list[int], seed: int = 0) -> tuple[Tensor, Tensor]:
    shape = (len(labels), head.num_logits)
    logits = 2 * torch.randn(shape, generator=seeded(seed), dtype=torch.float64)
    return logits, torch.tensor(labels, dtype=torch.int64)


def slow_softmax(z: list[float]) -> list[float]:
    total = sum(math.exp(value) for value in z)
    return [math.exp(value) / total for value in z]


def sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z))


def slow_focal_sum(logits: Tensor, labels: list[int], gamma: float, alpha: float) -> float:
    total = 0.0
    for z, y in zip(logits.tolist(), labels, strict=True):
        for j, value in enumerate(z):
            p_t = sigmoid(value) if j == y else sigmoid(-value)
            missing = sigmoid(-value) if j == y else sigmoid(value)
            alpha_t = alpha if j == y else 1 - alpha
            total += -alpha_t * missing**gamma * math.log(p_t)
    return total


def slow_eql(logits: Tensor, labels: list[int], shares: list[float], threshold: float) -> float:
    total = 0.0
    for z, y in zip(logits.tolist(), labels, strict=True):
        foreground = 0 if y == len(shares) else 1
        for j, value in enumerate(z):
            target = 1 if j == y else 0
            rare = 1 if shares[j] < threshold else 0
            weight = 1 - foreground * rare * (1 - target)
            total += -weight * math.log(sigmoid(value) if target else sigmoid(-value))
    return total / len(labels)


def random_labels(size: int, seed: int) -> list[int]:
    return torch.randint(C + 1, (size,), generator=seeded(seed)).tolist()


# Softmax: CE, CDB-W-CE, LRW


@thorough
@given(st.integers(1, 12), st.integers(0, 1000))
def test_weighted_cross_entropy_agrees_with_its_definition(size: int, seed: int) -> None:
    head = SoftmaxHead(C, WEIGHTS)
    logits, labels = batch(head, random_labels(size, seed), seed)
    total = 0.0
    for z, y in zip(logits.tolist(), labels.tolist(), strict=True):
        weight = 1.0 if y == C else float(WEIGHTS[y])
        total += -weight * math.log(slow_softmax(z)[y])
    assert float(head.loss(logits, labels)) == pytest.approx(total / size)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_each_reduction_divides_by_what_it_says(reduction: Reduction) -> None:
    head = SoftmaxHead(C, WEIGHTS, reduction=reduction)
    logits, labels = torch.zeros(3, C + 1), torch.tensor([0, 3, C])
    divisor = {"batch-size": 3.0, "weight-sum": 3.2, "sum": 1.0}[reduction]
    assert float(head.loss(logits, labels)) == pytest.approx(3.2 * math.log(5) / divisor)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_weights_of_1_weigh_as_no_weights(reduction: Reduction) -> None:
    plain = SoftmaxHead(C, reduction=reduction)
    ones = SoftmaxHead(C, torch.ones(C), reduction=reduction)
    logits, labels = batch(plain, MIXED)
    assert torch.equal(plain.loss(logits, labels), ones.loss(logits, labels))


def test_background_weighs_1_whatever_the_categories_weigh() -> None:
    logits, labels = batch(SoftmaxHead(C), BACKGROUND_ONLY)
    plain = SoftmaxHead(C).loss(logits, labels)
    assert torch.equal(SoftmaxHead(C, WEIGHTS).loss(logits, labels), plain)
    assert not torch.equal(
        SoftmaxHead(C, WEIGHTS).loss(logits, labels * 0), SoftmaxHead(C).loss(logits, labels * 0)
    )


def test_head_sees_the_update_of_a_balancer_in_the_next_step() -> None:
    balancer = ClassDifficultyBalancer(C, tau=1.0)
    head = make_head("cdb-w-ce", C, reduce=partial(balancer.weighted_mean, background_weight=1.0))
    logits, labels = batch(head, MIXED)
    before = float(head.loss(logits, labels))
    balancer.update(torch.tensor([0.9, 0.8, 0.2, 0.1]))
    fresh = SoftmaxHead(C, balancer.class_weights.clone())
    assert float(head.loss(logits, labels)) == float(fresh.loss(logits, labels)) != before


@pytest.mark.parametrize("method", ["cdb-w-ce", "lrw"])
def test_class_weights_are_not_saved_with_the_head(method: str) -> None:
    assert not build(method).state_dict()


def test_softmax_scores_leave_out_background_s_part() -> None:
    scores = SoftmaxHead(2).probabilities(torch.tensor([[0.0, math.log(2), math.log(5)]]))
    assert scores.tolist() == [pytest.approx([1 / 8, 2 / 8])]


def slow_lrw(counts: list[int]) -> list[float]:
    raw = [(1 - 0.999) / (1 - 0.999**n) if n else None for n in counts]
    known = [w for w in raw if w is not None]
    mean = sum(known) / len(known)
    return [1.0 if w is None else min(max(w / mean, 0.1), 5.0) for w in raw]


@thorough
@given(st.lists(st.integers(0, 30000), min_size=1, max_size=9).filter(any))
def test_lrw_weights_agree_with_their_definition(counts: list[int]) -> None:
    weights = lrw_class_weights(torch.tensor(counts))
    assert weights.tolist() == pytest.approx(slow_lrw(counts))
    assert weights.dtype == torch.float32


def test_lrw_weights_are_clipped_at_both_ends() -> None:
    weights = lrw_class_weights(torch.tensor([1] + [20000] * 50))
    assert weights.tolist() == pytest.approx([5.0] + [0.1] * 50)


def test_lrw_of_no_instance_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match="no category has an instance"):
        lrw_class_weights(torch.zeros(3))


def test_lrw_head_weighs_with_the_lrw_weights() -> None:
    head, plain = build("lrw"), SoftmaxHead(C, lrw_class_weights(COUNTS))
    logits, labels = batch(head, MIXED)
    assert torch.equal(head.loss(logits, labels), plain.loss(logits, labels))


# Sigmoid: focal and EQL


@thorough
@given(
    st.integers(1, 8), st.sampled_from([0.0, 0.5, 1.0, 2.0]), st.floats(0, 1), st.integers(0, 99)
)
def test_focal_loss_agrees_with_its_definition(
    size: int, gamma: float, alpha: float, seed: int
) -> None:
    head = FocalHead(C, gamma, alpha, divide_by="proposals")
    logits, labels = batch(head, random_labels(size, seed), seed)
    expected = slow_focal_sum(logits, labels.tolist(), gamma, alpha) / size
    assert float(head.loss(logits, labels)) == pytest.approx(expected, abs=1e-12)


def test_focal_loss_is_torchvision_s() -> None:
    head = FocalHead(C, divide_by="proposals")
    logits, labels = batch(head, MIXED)
    theirs = sigmoid_focal_loss(logits, head.targets(logits, labels), reduction="sum")
    assert float(head.loss(logits, labels)) == pytest.approx(float(theirs) / len(MIXED))


@pytest.mark.parametrize("divide_by", FOCAL_DIVISORS)
def test_focal_loss_is_divided_by_what_it_says(divide_by: FocalDivisor) -> None:
    head = FocalHead(C, divide_by=divide_by)
    logits, labels = batch(head, MIXED)
    divisor = {"foreground": 5, "proposals": 8, "elements": 8 * (C + 1)}[divide_by]
    expected = slow_focal_sum(logits, MIXED, 2.0, 0.25) / divisor
    assert float(head.loss(logits, labels)) == pytest.approx(expected)


def test_focal_loss_without_foreground_is_divided_by_1() -> None:
    head = FocalHead(C)
    logits, labels = batch(head, BACKGROUND_ONLY)
    expected = slow_focal_sum(logits, BACKGROUND_ONLY, 2.0, 0.25)
    assert float(head.loss(logits, labels)) == pytest.approx(expected)


@pytest.mark.parametrize("gamma", [0.0, 0.3, 2.0])
def test_focal_gradient_is_finite_at_extreme_logits(gamma: float) -> None:
    logits = torch.tensor([[300.0, -300.0, 40.0, -40.0]], requires_grad=True)
    FocalHead(C, gamma).loss(logits, torch.tensor([0])).backward()
    assert logits.grad is not None
    assert bool(logits.grad.isfinite().all())


@thorough
@given(st.integers(1, 8), st.sampled_from([0.0005, 1.76e-3, 0.02, 0.6, 1.0]), st.integers(0, 1000))
def test_equalization_loss_agrees_with_its_definition(
    size: int, threshold: float, seed: int
) -> None:
    head = EqlHead(C, SHARES, threshold)
    logits, labels = batch(head, random_labels(size, seed), seed)
    expected = slow_eql(logits, labels.tolist(), SHARES.tolist(), threshold)
    assert float(head.loss(logits, labels)) == pytest.approx(expected)


def gradient_at(head: ClassificationHead, labels: list[int]) -> Tensor:
    logits, wanted = batch(head, labels)
    logits.requires_grad_()
    head.loss(logits, wanted).backward()
    assert logits.grad is not None
    return logits.grad


def test_equalization_loss_spares_rare_categories_on_foreground_of_others_only() -> None:
    gradient = gradient_at(EqlHead(C, SHARES), [0, 3, C])
    assert (gradient == 0).tolist() == [
        [False, False, True, True],  # foreground of 0: 2 and 3 are rare
        [False, False, True, False],  # foreground of 3: its own logit is raised
        [False] * 4,  # background
    ]


def test_share_of_exactly_the_threshold_is_not_rare() -> None:
    shares = torch.tensor([0.5, 0.25, 0.125])
    assert EqlHead(3, shares, 0.25).rare.tolist() == [False, False, True]


def test_eql_under_whose_threshold_nothing_falls_is_refused() -> None:
    with pytest.raises(ValueError, match="choose a larger threshold"):
        EqlHead(C, SHARES, 0.0001)


def test_sigmoid_heads_score_with_the_sigmoid() -> None:
    scores = FocalHead(2).probabilities(torch.tensor([[0.0, math.log(3)]]))
    assert scores.tolist() == [pytest.approx([0.5, 0.75])]


# All heads


@pytest.mark.parametrize("labels", [MIXED, FOREGROUND_ONLY, BACKGROUND_ONLY])
@pytest.mark.parametrize("method", HEAD_METHODS)
def test_gradients_are_those_of_the_loss(method: str, labels: list[int]) -> None:
    head = build(method)
    logits, wanted = batch(head, labels)
    logits.requires_grad_()
    arguments = [head.draw(len(labels))] if isinstance(head, BagsHead) else []
    assert torch.autograd.gradcheck(lambda z: head.loss(z, wanted, *arguments), logits)


@pytest.mark.parametrize("method", HEAD_METHODS)
def test_loss_without_proposals_is_0_and_has_a_gradient(method: str) -> None:
    head = build(method)
    logits = torch.zeros(0, head.num_logits, requires_grad=True)
    loss = head.loss(logits, torch.zeros(0, dtype=torch.int64))
    loss.backward()
    assert loss.shape == ()
    assert float(loss.detach()) == 0
    assert head.probabilities(logits).shape == (0, C)


@pytest.mark.parametrize("labels", [MIXED, FOREGROUND_ONLY, BACKGROUND_ONLY])
@pytest.mark.parametrize("method", HEAD_METHODS)
def test_loss_falls_along_its_gradient(method: str, labels: list[int]) -> None:
    head = build(method)
    logits, wanted = batch(head, labels)
    arguments = [head.draw(len(labels))] if isinstance(head, BagsHead) else []
    logits.requires_grad_()
    before = head.loss(logits, wanted, *arguments)
    (slope,) = torch.autograd.grad(before, logits)
    assert head.loss(logits - 1e-2 * slope, wanted, *arguments) < before


@pytest.mark.parametrize("method", HEAD_METHODS)
def test_scores_are_probabilities_of_the_categories(method: str) -> None:
    head = build(method)
    scores = head.probabilities(batch(head, MIXED)[0])
    assert scores.shape == (len(MIXED), C)
    assert 0 <= float(scores.min()) <= float(scores.max()) <= 1


@pytest.mark.parametrize("method", [m for m in HEAD_METHODS if m != "bags"])
def test_heads_without_randomness_draw_no_number(method: str) -> None:
    generator = seeded()
    head = build(method, generator=generator)
    own, everyone = generator.get_state(), torch.get_rng_state()
    logits, labels = batch(head, MIXED)
    first, second = head.loss(logits, labels), head.loss(logits, labels)
    assert torch.equal(first, second)
    assert torch.equal(generator.get_state(), own)
    assert torch.equal(torch.get_rng_state(), everyone)


@pytest.mark.parametrize("method", HEAD_METHODS)
def test_half_precision_logits_are_added_up_in_float32(method: str) -> None:
    logits, labels = batch(build(method), MIXED)
    half = logits.to(torch.bfloat16)
    loss = build(method).loss(half, labels)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, build(method).loss(half.float(), labels))
    assert build(method).probabilities(half).dtype == torch.float32


@pytest.mark.parametrize("method", HEAD_METHODS)
def test_loss_runs_without_reading_a_number_from_the_device(method: str) -> None:
    # The meta device has no numbers to read: whatever needs one fails.
    weights = torch.empty(C, device="meta")
    head = build(method, reduce=weighted_by(weights)).to("meta")
    logits = torch.zeros(len(MIXED), head.num_logits, device="meta")
    assert head.loss(logits, torch.tensor(MIXED, device="meta")).shape == ()
    assert head.probabilities(logits).shape == (len(MIXED), C)


NO_OP_GUARDS: list[tuple[Callable[[], ClassificationHead], Callable[[], ClassificationHead]]] = [
    (lambda: build("cdb-w-ce"), lambda: build("cdb-w-ce", reduce=weighted_by(WEIGHTS.flip(0)))),
    (lambda: build("cdb-w-ce"), lambda: build("ce", reduction="weight-sum")),
    (lambda: build("lrw"), lambda: build("lrw", instance_counts=COUNTS.flip(0))),
    (lambda: build("focal"), lambda: build("focal", focal_gamma=1.0)),
    (lambda: build("focal"), lambda: build("focal", focal_alpha=0.5)),
    (lambda: build("focal"), lambda: build("focal", focal_divisor="proposals")),
    (lambda: build("eql"), lambda: build("eql", image_share=SHARES.flip(0))),
    (lambda: build("eql"), lambda: build("eql", eql_threshold=0.2)),
    (lambda: build("bags"), lambda: build("bags", instance_counts=COUNTS[[1, 0, 2, 3]])),
    (lambda: build("bags"), lambda: build("bags", bags_beta=1.0)),
    (lambda: build("bags", bags_beta=1.0), lambda: build("bags", seed=9, bags_beta=1.0)),
]


@pytest.mark.parametrize(("make", "changed"), NO_OP_GUARDS)
def test_every_option_reaches_the_loss(
    make: Callable[[], ClassificationHead], changed: Callable[[], ClassificationHead]
) -> None:
    logits, labels = batch(make(), [0, 3, C, C, 1, C, C, C, C, 0, C])
    assert torch.equal(make().loss(logits, labels), make().loss(logits, labels))
    assert not torch.equal(make().loss(logits, labels), changed().loss(logits, labels))


@pytest.mark.parametrize("method", ["simcal", "calib"])
def test_calibration_threshold_reaches_the_scores(method: str) -> None:
    head, changed = build(method), build(method, calibration_threshold=1)
    logits, _ = batch(head, MIXED)
    assert not torch.equal(head.probabilities(logits), changed.probabilities(logits))


@pytest.mark.parametrize("method", ["lrw", "eql", "bags", "simcal", "calib"])
def test_a_head_moves_with_all_that_it_holds(method: str) -> None:
    buffers = list(build(method).to("meta").buffers())
    assert buffers
    assert all(buffer.is_meta for buffer in buffers)


@pytest.mark.parametrize(
    ("method", "kind"),
    [
        ("ce", SoftmaxHead),
        ("rfs", SoftmaxHead),
        ("cdb-s", SoftmaxHead),
        ("cdb-w-ce", SoftmaxHead),
        ("lrw", SoftmaxHead),
        ("focal", FocalHead),
        ("eql", EqlHead),
        ("bags", BagsHead),
        ("simcal", CalibratedHead),
        ("calib", CalibratedHead),
    ],
)
def test_a_method_has_its_head(method: str, kind: type[ClassificationHead]) -> None:
    assert type(build(method)) is kind


def test_methods_that_sample_images_leave_the_loss_plain() -> None:
    logits, labels = batch(build("ce"), MIXED)
    plain = SoftmaxHead(C).loss(logits, labels)
    for method in ("ce", "rfs", "cdb-s"):
        assert torch.equal(build(method).loss(logits, labels), plain)


@pytest.mark.parametrize("method", HEAD_METHODS)
def test_the_heads_that_are_made_from_counts_and_only_they_refuse_to_go_without(
    method: str,
) -> None:
    lacking = {"instance_counts": None, "image_share": None}
    if METHODS[method].counted:
        with pytest.raises(ValueError, match=r"made from \w+ of the categories"):
            build(method, **lacking)
    else:
        assert build(method, **lacking).num_classes == C


@pytest.mark.parametrize(
    ("build_wrong", "words"),
    [
        (lambda: SoftmaxHead(0), "at least 1 category, not 0"),
        (lambda: SoftmaxHead(C, torch.ones(C + 1)), "class weights of 4 categories"),
        (lambda: SoftmaxHead(C, -WEIGHTS), "class weights must be at least 0"),
        (lambda: SoftmaxHead(C, reduction="mean"), "reduction must be one of"),  # type: ignore[arg-type]
        (lambda: FocalHead(C, -1.0), "gamma must be at least 0"),
        (lambda: FocalHead(C, alpha=1.5), r"alpha must be in \[0, 1\]"),
        (lambda: FocalHead(C, divide_by="R"), "divide_by must be one of"),  # type: ignore[arg-type]
        (lambda: EqlHead(C, SHARES[:2]), "image shares of 4 categories"),
        (lambda: EqlHead(C, SHARES * torch.nan), "image shares must be at least 0"),
    ],
)
def test_impossible_head_is_refused(
    build_wrong: Callable[[], ClassificationHead], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        build_wrong()


def mean_over_two_ranks(
    monkeypatch: pytest.MonkeyPatch, module: object, losses: list[Callable[[], Tensor]]
) -> float:
    """The mean of what each rank computes when their sums are added."""
    added: list[Tensor] = []
    monkeypatch.setattr(module, "world_size", lambda: 2)

    def remember(values: Tensor) -> Tensor:
        added.append(values.detach())
        return values.detach()

    monkeypatch.setattr(module, "all_reduce_sum", remember)
    for loss in losses:
        loss()
    total = added[0] + added[1]
    monkeypatch.setattr(module, "all_reduce_sum", lambda values: total)
    return sum(float(loss()) for loss in losses) / 2


def test_focal_loss_of_two_unequal_ranks_is_that_of_the_whole_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    head = build("focal")
    logits, labels = batch(head, MIXED)
    whole = float(head.loss(logits, labels))
    shares = [slice(0, 3), slice(3, 8)]
    parts = [lambda s=s: head.loss(logits[s], labels[s]) for s in shares]
    assert mean_over_two_ranks(monkeypatch, sigmoid_module, parts) == pytest.approx(whole)


def test_grouped_softmax_of_two_unequal_ranks_is_that_of_the_whole_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    head = build("bags", bags_beta=100.0)  # every proposal is kept in a bin with foreground
    assert isinstance(head, BagsHead)
    logits, labels = batch(head, [0, 1, 2, 3, C, C, 3, 2, 1, 0, 0, C])
    whole = float(head.loss(logits, labels))
    shares = [slice(0, 5), slice(5, 12)]
    parts = [lambda s=s: head.loss(logits[s], labels[s]) for s in shares]
    assert mean_over_two_ranks(monkeypatch, bags_module, parts) == pytest.approx(whole)


REDUCED = [(method, "batch-size") for method in HEAD_METHODS]
REDUCED += [("cdb-w-ce", reduction) for reduction in REDUCTIONS if reduction != "batch-size"]


@pytest.mark.parametrize(("method", "reduction"), REDUCED)
def test_a_rank_without_proposals_joins_every_sum_over_the_ranks(
    monkeypatch: pytest.MonkeyPatch, method: str, reduction: Reduction
) -> None:
    head = build(method, reduction=reduction)
    summed: list[int] = []

    def count(values: Tensor) -> Tensor:
        summed.append(values.numel())
        return values.detach() + 3.0

    for module in (losses_module, sigmoid_module, bags_module):
        monkeypatch.setattr(module, "all_reduce_sum", count)
        monkeypatch.setattr(module, "world_size", lambda: 2)
    monkeypatch.setattr(losses_module, "is_distributed", lambda: True)
    head.loss(*batch(head, MIXED))
    usual = summed.copy()
    summed.clear()
    logits, labels = batch(head, [])
    loss = head.loss(logits.requires_grad_(), labels)
    loss.backward()
    assert summed == usual
    assert float(loss.detach()) == 0


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_softmax_loss_of_two_ranks_one_without_proposals_is_that_of_the_whole_batch(
    monkeypatch: pytest.MonkeyPatch, reduction: Reduction
) -> None:
    head = build("cdb-w-ce", reduction=reduction)
    logits, labels = batch(head, MIXED)
    whole = float(head.loss(logits, labels))
    monkeypatch.setattr(losses_module, "is_distributed", lambda: True)
    shares = [slice(0, 8), slice(8, 8)]
    parts = [lambda s=s: head.loss(logits[s], labels[s]) for s in shares]
    if reduction == "sum":  # It sums nothing over the ranks.
        monkeypatch.setattr(losses_module, "world_size", lambda: 2)
        assert sum(float(part()) for part in parts) / 2 == pytest.approx(whole)
    else:
        assert mean_over_two_ranks(monkeypatch, losses_module, parts) == pytest.approx(whole)


def test_step_uses_up_one_number_of_the_generator_whatever_its_size() -> None:
    small, large = seeded(), seeded()
    step_draws(small, 0)
    step_draws(large, 500, 4)
    assert torch.equal(small.get_state(), large.get_state())
    assert not torch.equal(small.get_state(), seeded().get_state())


def test_ranks_draw_other_numbers_and_keep_the_same_generator(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn, states = [], []
    for number in range(2):
        monkeypatch.setattr("detection.heads.base.rank", lambda number=number: number)
        generator = seeded()
        drawn.append(step_draws(generator, 6))
        states.append(generator.get_state())
    assert torch.equal(states[0], states[1])
    assert not torch.equal(drawn[0], drawn[1])
