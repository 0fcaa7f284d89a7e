"""Runs every code block of docs/lightning.md, on one process and on two.

Where Lightning or Accelerate is not installed a small stand-in takes its place: as far as the page
uses them, with the samplers that they put around a loader's own.
"""

import importlib.util
import os
import re
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler

from common.distributed import is_distributed, rank, world_size
from tests.ranks import on_ranks

PAGE = Path(__file__).parents[2] / "docs" / "lightning.md"
# In this checkout the package is called common.
TEXT = PAGE.read_text().replace("from cdb_longtail", "from common")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
RANKS = 2


class SamplerWrapper(DistributedSampler[int]):
    """Lightning's: the indices of a sampler, shared among the ranks."""

    def __init__(self, sampler: Any) -> None:
        super().__init__(sampler, shuffle=False)
        self.sampler = sampler

    def __iter__(self) -> Iterator[int]:
        indices = list(self.sampler)
        return (indices[place] for place in super().__iter__())


class LightningModule(nn.Module):
    """A module that a trainer trains."""

    trainer: Any
    device, dtype = torch.device("cpu"), torch.float32

    @property
    def global_rank(self) -> int:
        return rank()

    def log(self, name: str, value: float, *, sync_dist: bool) -> None:
        self.trainer.logged.setdefault(name, []).append(value)


class Step(nn.Module):
    """What DistributedDataParallel is put around: its ``forward`` is the training step."""

    def __init__(self, module: Any) -> None:
        super().__init__()
        self.module = module

    def forward(self, batch: Any, number: int) -> Tensor:
        loss: Tensor = self.module.training_step(batch, number)
        return loss


class Trainer:
    """Trains on all ranks of the process group."""

    def __init__(self, max_epochs: int, use_distributed_sampler: bool = True, **_: Any) -> None:
        self.max_epochs, self.shares = max_epochs, use_distributed_sampler and is_distributed()
        self.world_size = world_size()
        self.logged: dict[str, list[float]] = {}
        self.steps = 0

    def fit(self, module: Any, loader: DataLoader[Any] | None = None) -> None:
        module.trainer = self
        loader = module.train_dataloader() if loader is None else loader
        assert loader is not None
        if self.shares:
            shared = SamplerWrapper(loader.sampler)
            loader = DataLoader(loader.dataset, loader.batch_size, sampler=shared)
        step: nn.Module = Step(module)
        step = DistributedDataParallel(step) if is_distributed() else step
        optimizer = module.configure_optimizers()
        for _ in range(self.max_epochs):
            for number, batch in enumerate(loader):
                optimizer.zero_grad()
                step(batch, number).backward()
                optimizer.step()
                self.steps += 1
            module.on_train_epoch_end()


class BatchSamplerShard(BatchSampler):
    """Accelerate's: every W-th batch of a batch sampler."""

    def __init__(self, batch_sampler: Any) -> None:
        self.batch_sampler = batch_sampler
        self.num_processes, self.process_index = world_size(), rank()

    def __iter__(self) -> Iterator[list[int]]:
        for number, batch in enumerate(self.batch_sampler):
            if number % self.num_processes == self.process_index:
                yield batch

    def __len__(self) -> int:
        return -(-len(self.batch_sampler) // self.num_processes)


class Accelerator:
    """Puts a model and a loader onto the ranks of the process group."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        self.num_processes, self.process_index = world_size(), rank()
        self.registered: tuple[Any, ...] = ()

    def prepare(self, model: nn.Module, optimizer: Any, loader: DataLoader[Any]) -> Any:
        if not is_distributed():
            return model, optimizer, loader
        shard = BatchSamplerShard(loader.batch_sampler)
        shared: DataLoader[Any] = DataLoader(loader.dataset, batch_sampler=shard)
        return DistributedDataParallel(model), optimizer, shared

    def register_for_checkpointing(self, *parts: Any) -> None:
        self.registered = parts

    def backward(self, loss: Tensor) -> None:
        loss.backward()

    def unwrap_model(self, model: Any) -> nn.Module:
        return model.module if is_distributed() else model


STAND_INS = {
    "lightning": {"LightningModule": LightningModule, "Trainer": Trainer},
    "accelerate": {"Accelerator": Accelerator},
}


def run_page(folder: Path, replaced: tuple[str, str] = ("", ""), real: bool = True) -> Any:
    """The names that the page leaves, with what is not installed replaced."""
    for name, members in STAND_INS.items():
        if not real or importlib.util.find_spec(name) is None:
            module = ModuleType(name)
            vars(module).update(members)
            sys.modules[name] = module
    text = "\n".join(BLOCKS)
    assert replaced[0] in text
    script = folder / "page.py"
    script.write_text(text.replace(*replaced) if replaced[0] else text)
    before = Path.cwd()
    os.chdir(folder)
    try:
        return runpy.run_path(str(script))
    finally:
        os.chdir(before)
        for name in STAND_INS:
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    names: dict[str, Any] = run_page(tmp_path_factory.mktemp("page"))
    return names


def state_of(names: dict[str, Any]) -> dict[str, Any]:
    return {
        "weighted": names["weighted"].state_dict(),
        "resampled": names["resampled"].state_dict(),
        "accelerated": names["plain_model"].state_dict() | names["balancer"].state_dict(),
        "probabilities": [
            names["resampled"].sampler.probabilities,
            names["whole_sampler"].probabilities,
        ],
        "lengths": [len(names["sampler"]), len(names["whole_sampler"]), len(names["loader"])],
    }


def test_all_code_of_the_page_is_run() -> None:
    fences = [line for line in PAGE.read_text().splitlines() if line.startswith("```")]
    assert fences == ["```python", "```"] * len(BLOCKS)
    assert len(BLOCKS) == 4


def test_code_of_the_page_runs_and_the_samplers_follow_the_balancers(page: dict[str, Any]) -> None:
    for balancer in (page["weighted"].balancer, page["resampled"].balancer, page["balancer"]):
        assert balancer.measured.all()
        assert len(set(balancer.class_weights.tolist())) == 3
    resampled = page["resampled"]
    assert torch.equal(resampled.sampler.probabilities, resampled.balancer.probabilities)
    assert torch.equal(page["whole_sampler"].probabilities, page["balancer"].probabilities)


def test_sampler_of_the_page_goes_on_from_its_checkpoint(page: dict[str, Any]) -> None:
    trained, fresh, checkpoint = page["resampled"], page["Resampled"](), {}
    trained.on_save_checkpoint(checkpoint)
    expected = trained.sampler.draw()
    fresh.on_load_checkpoint(checkpoint)
    assert torch.equal(fresh.sampler.draw(), expected)


def found_on_this_rank(folder: Path) -> dict[str, Any]:
    own = folder / f"of rank {dist.get_rank()}"
    own.mkdir()
    found = state_of(run_page(own, real=False))
    for option in ("use_distributed_sampler=False", ", rank=0, world_size=1"):
        with pytest.raises(RuntimeError, match="shares it again") as refused:
            run_page(
                own, (option, option.replace("False", "True") if "=F" in option else ""), False
            )
        found[option] = str(refused.value)
    return found


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("ranks")
    return on_ranks(RANKS, folder, found_on_this_rank, folder)


def test_each_of_two_processes_gets_half_of_the_epoch(both: list[dict[str, Any]]) -> None:
    # 472 samples: 236 each; Accelerate shares the 30 batches of the whole draw.
    assert [found["lengths"] for found in both] == [[236, 472, 15]] * RANKS


@pytest.mark.parametrize("part", ["weighted", "resampled", "accelerated"])
def test_processes_of_the_page_train_one_model(both: list[dict[str, Any]], part: str) -> None:
    first, second = (found[part] for found in both)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert all(map(torch.equal, both[0]["probabilities"], both[1]["probabilities"]))


def test_what_would_share_twice_is_refused_by_name(both: list[dict[str, Any]]) -> None:
    for found in both:
        assert "SamplerWrapper shares it again" in found["use_distributed_sampler=False"]
        assert "BatchSamplerShard shares it again" in found[", rank=0, world_size=1"]
