"""Runs every code block of docs/using-the-core.md, in order, as a reader would."""

import os
import re
import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from common.balancer import ClassDifficultyBalancer
from common.difficulty import class_accuracy
from common.distributed import rank
from common.losses import cross_entropy
from common.tau import TAU_LAWS, LawOptions, sigmoid_tau, tau_from_performance
from tests.ranks import on_ranks

PAGE = Path(__file__).parents[2] / "docs" / "using-the-core.md"
# In this checkout the package is called common.
TEXT = PAGE.read_text().replace("from cdb_longtail", "from common")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
RANKS = 2


def run_blocks(blocks: list[str], folder: Path) -> dict[str, Any]:
    """The names that the blocks leave, when run one after the other in ``folder``."""
    script = folder / "page.py"
    script.write_text("\n".join(blocks))
    before = Path.cwd()
    os.chdir(folder)
    try:
        return runpy.run_path(str(script))
    finally:
        os.chdir(before)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    place = next(i for i, block in enumerate(BLOCKS) if "accumulated = " in block) + 1
    # Later blocks use these names anew.
    kept = "from copy import deepcopy\nmodel_then = deepcopy(model)\n"
    kept += "CLASS_WEIGHTS_THEN = balancer.class_weights.clone()\n"
    steadied = next(i for i, block in enumerate(BLOCKS) if "smoothed = " in block) + 1
    blocks = [*BLOCKS[:place], kept, *BLOCKS[place:steadied], "model_steadied = deepcopy(model)\n"]
    return run_blocks([*blocks, *BLOCKS[steadied:]], tmp_path_factory.mktemp("page"))


def test_all_code_of_the_page_is_run() -> None:
    fences = [line for line in PAGE.read_text().splitlines() if line.startswith("```")]
    assert fences == ["```python", "```"] * len(BLOCKS)
    assert len(BLOCKS) == 19


def test_code_of_the_page_runs_and_balances_by_accuracy(page: dict[str, Any]) -> None:
    balancer = page["balancer"]
    assert balancer.measured.all()
    assert len(set(balancer.class_weights.tolist())) == 3
    assert torch.equal(page["sampler"].probabilities, balancer.probabilities)


def test_background_keeps_the_weight_that_it_is_given(page: dict[str, Any]) -> None:
    weights = page["CLASS_WEIGHTS_THEN"]
    expected = (float(weights[0] + weights[2]) + 2.0) / 4
    assert float(page["detector_loss"]) == pytest.approx(expected)


def test_every_loss_of_the_page_is_weighted(page: dict[str, Any]) -> None:
    losses = torch.stack(page["weighted_losses"])
    assert losses.shape == (4,)
    assert bool((losses > 0).all())
    assert len(set(losses.tolist())) == 4


def test_the_losses_of_the_class_counts_are_those_of_the_pages_training_set(
    page: dict[str, Any],
) -> None:
    assert page["class_counts"].tolist() == [400, 60, 12]
    assert page["balanced"].isfinite()
    assert page["adjusted"].isfinite()
    assert page["balanced"] != page["adjusted"]


def test_average_precision_drives_the_balancer(page: dict[str, Any]) -> None:
    scores, positive = torch.tensor([0.9, 0.8, 0.7]), torch.tensor([True, False, True])
    by_hand = (1 / 1 + 2 / 3) / 2
    assert float(page["average_precision"](scores, positive)) == pytest.approx(by_hand)
    assert page["average_precision"](scores, torch.zeros(3, dtype=torch.bool)).isnan()
    torch.testing.assert_close(page["by_ap"].difficulty, 1 - page["ap"])


def test_steadiers_of_the_page_do_what_it_says(page: dict[str, Any]) -> None:
    first, second, third, fourth = page["weights_of_epoch"]
    assert first == second == [1.0] * 3
    assert len({*third, *fourth}) > 3
    measured = class_accuracy(page["model_steadied"], page["difficulty_loader"], 3, prior=1.0)
    assert torch.equal(page["smoothed"], measured)
    before, after = page["drawn_of_epoch"]
    labels = page["train_labels"]
    assert sorted(before.tolist()) == list(range(len(labels)))
    assert (labels[after] == 2).sum() > 2 * (labels == 2).sum()


def test_lower_is_better_measure_drives_the_balancer(page: dict[str, Any]) -> None:
    assert page["by_error"].difficulty.tolist() == pytest.approx([0.05, 0.2, 1.0])


def flat(state: Any) -> list[Any]:
    """All leaves of nested dicts and lists."""
    if isinstance(state, dict):
        return [leaf for key in sorted(state, key=str) for leaf in flat(state[key])]
    if isinstance(state, list):
        return [leaf for value in state for leaf in flat(value)]
    return [state]


def same(first: Any, second: Any) -> bool:
    return torch.equal(first, second) if isinstance(first, Tensor) else bool(first == second)


def test_resumed_run_of_the_page_equals_the_uninterrupted_one(page: dict[str, Any]) -> None:
    uninterrupted, resumed = flat(page["train"](epochs=4)), flat(page["resumed"])
    assert len(uninterrupted) == len(resumed) > 15
    assert all(same(a, b) for a, b in zip(uninterrupted, resumed, strict=True))


@pytest.mark.parametrize("part", ["balancer", "sampler", "streams"])
def test_resuming_without_a_part_gives_another_run(
    page: dict[str, Any], part: str, tmp_path: Path
) -> None:
    checkpoint = page["train"](epochs=2)
    checkpoint[part] = page["train"](epochs=0)[part]
    other = page["train"](epochs=4, checkpoint=checkpoint)
    weights = zip(flat(other["model"]), flat(page["resumed"]["model"]), strict=True)
    assert not all(same(a, b) for a, b in weights)


def test_page_names_every_tau_law_and_says_when_the_printed_sigmoid_saturates() -> None:
    text = PAGE.read_text()
    assert [law for law in TAU_LAWS if f'| `"{law}"`' not in text] == []
    saturated = tau_from_performance("sigmoid", torch.tensor([0.5, 0.0], dtype=torch.float64))
    assert "A_max = 0.5 the bias is 49 and tau is 5.00" in text
    assert f"{float(saturated):.2f}" == "5.00"
    assert "It is 4.93 from a bias of 5 on" in text
    assert f"{float(sigmoid_tau(torch.tensor(6.0), LawOptions())):.2f}" == "4.93"


def test_page_keeps_the_epoch_with_the_best_balanced_accuracy(page: dict[str, Any]) -> None:
    kept = page["new_model"]()
    kept.load_state_dict(page["best_weights"])
    accuracy = page["class_accuracy"](kept, page["difficulty_loader"], 3)
    assert float(accuracy.mean()) == pytest.approx(page["best_accuracy"])


def test_pixels_of_the_page_leave_the_ignored_out(page: dict[str, Any]) -> None:
    labels, weights = page["pixel_labels"], page["CLASS_WEIGHTS_THEN"]
    kept = labels != 255
    by_hand = (page["pixel_losses"][kept] * weights[labels[kept]]).mean()
    torch.testing.assert_close(page["pixel_loss"], by_hand)
    right = page["pixel_logits"].argmax(dim=1) == labels
    expected = [float(right[labels == c].double().mean()) for c in range(3)]
    assert page["pixel_accuracy"].tolist() == pytest.approx(expected)


def test_sigmoid_losses_of_the_page_weigh_each_by_the_class_it_is_about(
    page: dict[str, Any],
) -> None:
    weights = page["CLASS_WEIGHTS_THEN"]
    by_sample = (page["sigmoid_losses"].sum(dim=1) * weights[page["train_labels"][:8]]).mean()
    torch.testing.assert_close(page["sigmoid_loss"], by_sample)
    by_class = (page["multi_label_losses"] * weights).mean()
    torch.testing.assert_close(page["multi_label_loss"], by_class)
    assert page["by_recall"].measured.all()


def test_mixed_labels_of_the_page_weigh_alike_in_both_ways(page: dict[str, Any]) -> None:
    torch.testing.assert_close(page["mixed_loss"], page["same_loss"])
    assert page["mixed_loss"].item() > 0


def test_accumulated_gradients_of_the_page_are_those_of_the_whole_batch(
    page: dict[str, Any],
) -> None:
    model, balancer = page["model_then"], ClassDifficultyBalancer(3, reduction="weight-sum")
    balancer.load_state_dict(page["summing"].state_dict())
    images, labels = page["train_images"][:8], page["train_labels"][:8]
    loss = balancer.weighted(cross_entropy)(model(images), labels)
    expected = torch.autograd.grad(loss, list(model.parameters()))
    for found, wanted in zip(page["accumulated"], expected, strict=True):
        torch.testing.assert_close(found, wanted)


def test_loss_that_is_already_a_mean_is_refused_as_the_page_says() -> None:
    balancer, labels = ClassDifficultyBalancer(3), torch.tensor([0, 1])
    with pytest.raises(ValueError, match="one loss per sample"):
        balancer.weighted_mean(cross_entropy(torch.zeros(2, 3), labels).mean(), labels)


def states_of_the_page(folder: Path) -> list[dict[str, Tensor]]:
    """Of the model and the balancer, trained by this rank with the others."""
    own = folder / f"of rank {rank()}"
    own.mkdir()
    # The setting, the imports of CDB-W and CDB-S, and the last block: several GPUs.
    imports = [line for block in BLOCKS for line in block.splitlines() if "import" in line[:40]]
    names = run_blocks([BLOCKS[0], "\n".join(imports), BLOCKS[-1]], own)
    return [names[f"distributed_{name}"].state_dict() for name in ("model", "balancer")]


def in_one_process(page: dict[str, Any]) -> list[dict[str, Tensor]]:
    """The same training with whole batches: what the ranks must arrive at together."""
    model, optimizer_class = page["new_model"](), torch.optim.SGD
    optimizer = optimizer_class(model.parameters(), lr=0.1)
    balancer = ClassDifficultyBalancer(3, reduction="weight-sum")
    generator = page["Streams"](seed=0)["sampler"]
    sampler = page["InstanceBalancedSampler"](page["train_labels"], 3, generator)
    for _ in range(2):
        for index in sampler.draw().split(32):
            images, labels = page["train_images"][index], page["train_labels"][index]
            optimizer.zero_grad()
            balancer.weighted(cross_entropy)(model(images), labels).backward()
            optimizer.step()
        balancer.update(page["class_accuracy"](model, page["difficulty_loader"], 3))
    return [model.state_dict(), balancer.state_dict()]


def test_ranks_of_the_page_train_the_model_of_one_process(
    page: dict[str, Any], tmp_path: Path
) -> None:
    first, second = on_ranks(RANKS, tmp_path, states_of_the_page, tmp_path)
    assert all(same(a, b) for a, b in zip(flat(first), flat(second), strict=True))
    assert len(flat(first)) == 10
    for a, b in zip(flat(first), flat(in_one_process(page)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
