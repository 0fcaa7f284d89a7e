"""Random numbers of the torchvision engine, and difficulty from its sampled proposals."""

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from detection.models import ProposalAccuracy, Rcnn, global_draws_from, total_loss
from tests.detection.heads import make_head
from tests.detection.rcnn_scenes import Target, stream, tiny, two_scenes


@pytest.fixture(autouse=True)
def global_generator_untouched() -> Iterator[None]:
    before = torch.get_rng_state()
    yield
    assert torch.equal(torch.get_rng_state(), before)


def losses_of(model: Rcnn, images: list[Tensor], targets: list[Target], seed: int = 3) -> Any:
    model.train()
    with global_draws_from(stream(seed)):
        return model(images, targets)


def test_weights_are_drawn_from_the_given_generator_alone() -> None:
    first, second, other = tiny(seed=0), tiny(seed=0), tiny(seed=1)
    states = zip(first.state_dict().items(), second.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for (_, a), b in states)
    weight = "roi_heads.box_predictor.cls_score.weight"
    assert not torch.equal(first.state_dict()[weight], other.state_dict()[weight])


def test_proposals_are_sampled_from_the_given_generator() -> None:
    model, (images, targets) = tiny(), two_scenes()
    first, second, other = (
        losses_of(model, images, targets, seed)["loss_objectness"] for seed in (3, 3, 4)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_a_block_takes_one_number_of_the_generator_however_many_it_draws() -> None:
    few, many = stream(0), stream(0)
    with global_draws_from(few):
        torch.rand(1)
    with global_draws_from(many):
        torch.rand(1000)
    assert torch.equal(few.get_state(), many.get_state())


def test_the_global_generator_is_put_back_after_an_error() -> None:
    before = torch.get_rng_state()

    def fail() -> None:
        with global_draws_from(stream(0)):
            torch.rand(1)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert torch.equal(torch.get_rng_state(), before)


def steps(model: Rcnn, optimizer: torch.optim.Optimizer, draws: torch.Generator) -> None:
    model.train()
    for _ in range(3):
        with global_draws_from(draws, per_rank=True):
            loss = total_loss(model(*two_scenes()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def start(seed: int) -> tuple[Rcnn, torch.optim.Optimizer]:
    model = tiny(seed=seed, masks=True)
    return model, torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)


def test_a_resumed_run_equals_the_uninterrupted_one() -> None:
    (whole, optimizer), draws = start(0), stream(7)
    steps(whole, optimizer, draws)
    state = [whole.state_dict(), optimizer.state_dict(), draws.get_state()]
    weights, momentum, position = copy.deepcopy(state)
    steps(whole, optimizer, draws)
    (resumed, other), generator = start(1), stream(0)
    resumed.load_state_dict(weights)
    other.load_state_dict(momentum)
    generator.set_state(position)
    steps(resumed, other, generator)
    for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b)


# ---- difficulty from proposals ----


def test_the_counts_are_of_the_labels_and_the_most_probable_categories() -> None:
    model = tiny(make_head("ce", 3))
    accuracy = model.roi_heads.proposal_accuracy = ProposalAccuracy(3)
    # Proposals of categories 0, 0, 1 and background; the second is taken for category 2, the
    # third's background logit is above that of its category, which is its best nevertheless.
    logits = torch.tensor(
        [[2.0, 0.0, 0.0, 0.0], [0.0, 0.0, 2.0, 0.0], [0.0, 1.0, 0.0, 9.0], [9.0, 0.0, 0.0, 0.0]]
    )
    model.roi_heads._count(logits, torch.tensor([0, 0, 1, 3]))
    assert accuracy.state_dict()["counts"].tolist() == [[1, 1, 0], [2, 1, 0]]
    assert accuracy.compute()[:2].tolist() == [0.5, 1.0]
    assert bool(accuracy.compute()[2].isnan())


def test_counting_changes_no_loss_and_goes_on_after_a_restart() -> None:
    images, targets = two_scenes()
    plain = losses_of(tiny(), images, targets)
    model = tiny()
    model.roi_heads.proposal_accuracy = ProposalAccuracy(3)
    counted = losses_of(model, images, targets)
    assert all(torch.equal(counted[name], value) for name, value in plain.items())
    later = ProposalAccuracy(3)
    later.load_state_dict(model.roi_heads.proposal_accuracy.state_dict())
    torch.testing.assert_close(
        later.compute(), model.roi_heads.proposal_accuracy.compute(), equal_nan=True
    )


@pytest.mark.parametrize("first", [True, False])
def test_pooled_counts_are_the_first_ranks_to_save_and_no_other_ranks_to_load(
    first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("detection.models.roi_heads.is_first_rank", lambda: first)
    monkeypatch.setattr("detection.models.roi_heads.all_reduce_sum", lambda counts: 2 * counts)
    counts = ProposalAccuracy(2)
    counts.add(torch.tensor([0, 1, 1]), torch.tensor([0, 0, 1]))
    own = counts.state_dict()["counts"]
    counts.pool()
    assert torch.equal(counts.state_dict()["counts"], 2 * own if first else 0 * own)
    loaded = ProposalAccuracy(2)
    loaded.load_state_dict({"counts": 2 * own})
    assert torch.equal(loaded.state_dict()["counts"], 2 * own if first else 0 * own)
