import collections
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from common.errors import UserError
from video.models import ResNeXt3d, load_kinetics, make_small_resnext
from video.models.resnext3d import initialise_resnext

State = dict[str, Tensor]


def network(classes: int, seed: int, **options: Any) -> ResNeXt3d:
    """Small, with running statistics that are not those of the start."""
    generator = torch.Generator().manual_seed(seed)
    result = ResNeXt3d(classes, (1, 2), width=16, cardinality=8, **options)
    initialise_resnext(result, generator)
    for name, tensor in result.state_dict().items():
        if "running" in name:
            tensor.uniform_(0.5, 1.5, generator=generator)
    return result


def published(**changes: Tensor | None) -> State:
    """Weights of 400 classes as they were published: from DataParallel, no batches counted.

    Args:
        changes: tensors added or replaced; None: left out. ``__`` stands for a full stop.
    """
    state = network(400, seed=1).state_dict()
    state = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    for name, value in changes.items():
        key = name.replace("__", ".")
        if value is None:
            del state[key]
        else:
            state[key] = value
    return {f"module.{name}": value for name, value in state.items()}


def save(folder: Path, content: object, **options: Any) -> Path:
    path = folder / "resnext-101-kinetics.pth"
    torch.save(content, path, **options)
    return path


def checkpoint(state: State) -> dict[str, Any]:
    optimizer = {"state": {0: {"momentum_buffer": torch.ones(3)}}, "param_groups": [{"lr": 0.1}]}
    ordered = collections.OrderedDict(state)
    return {"arch": "resnext-101", "epoch": 150, "state_dict": ordered, "optimizer": optimizer}


def refusal(path: Path, model: nn.Module | None = None) -> str:
    """The sentence; the model must be as it was."""
    model = network(19, seed=0) if model is None else model
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(UserError) as caught:
        load_kinetics(model, path)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("bare", [True, False])
def test_everything_but_the_classifier_is_taken(tmp_path: Path, zipped: bool, bare: bool) -> None:
    state = published()
    content = state if bare else checkpoint(state)
    path = save(tmp_path, content, _use_new_zipfile_serialization=zipped)
    model = network(19, seed=0)
    classifier = {name: value.clone() for name, value in model.fc.state_dict().items()}
    load_kinetics(model, path)
    for name, value in model.state_dict().items():
        if name.startswith("fc."):
            assert torch.equal(value, classifier[name.removeprefix("fc.")])
        elif not name.endswith("num_batches_tracked"):
            assert torch.equal(value, state[f"module.{name}"])
    assert not torch.equal(model.conv1.weight, network(19, seed=0).conv1.weight)
    assert model.fc.weight.shape == (19, 128)


class OldTensor:
    """Pickled as PyTorch did in 2017: without gradient's needs and hooks."""

    def __init__(self, values: Tensor) -> None:
        self.values = values.contiguous()

    def __reduce__(self) -> tuple[Callable[..., Tensor], tuple[Any, ...]]:
        values = self.values
        storage = values._typed_storage()
        return torch._utils._rebuild_tensor, (storage, 0, tuple(values.shape), values.stride())


def test_tensors_pickled_in_2017_are_read(tmp_path: Path) -> None:
    old = {name: OldTensor(value) for name, value in published().items()}
    path = save(tmp_path, {"state_dict": old}, _use_new_zipfile_serialization=False)
    model = network(19, seed=0)
    load_kinetics(model, path)
    assert torch.equal(model.conv1.weight, network(400, seed=1).conv1.weight)


def test_a_network_saved_today_with_its_counters_is_taken_too(tmp_path: Path) -> None:
    source = network(19, seed=3)
    source(torch.zeros(2, 3, 4, 16, 16))
    model = network(19, seed=0)
    load_kinetics(model, save(tmp_path, source.state_dict()))
    assert int(model.get_buffer("bn1.num_batches_tracked")) == 1


def test_a_checkpoint_without_classifier_is_taken(tmp_path: Path) -> None:
    model = network(19, seed=0)
    load_kinetics(model, save(tmp_path, published(fc__weight=None, fc__bias=None)))
    assert torch.equal(model.conv1.weight, network(400, seed=1).conv1.weight)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    assert "absent.pth is missing" in refusal(tmp_path / "absent.pth")


def test_a_folder_is_refused(tmp_path: Path) -> None:
    assert "is a folder" in refusal(tmp_path)


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 no zip", bytes(1000)])
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    assert "no checkpoint" in refusal(path)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_truncated_checkpoint_is_refused(tmp_path: Path, zipped: bool) -> None:
    path = save(tmp_path, checkpoint(published()), _use_new_zipfile_serialization=zipped)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert "resnext-101-kinetics.pth of Hara et al." in refusal(path)


class Code:
    """Unpickling it would make a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[..., None], tuple[str]]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path: Path, zipped: bool) -> None:
    content = checkpoint(published()) | {"arch": Code(tmp_path / "made")}
    path = save(tmp_path, content, _use_new_zipfile_serialization=zipped)
    assert "foreign code" in refusal(path)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    "content",
    [torch.ones(3), [1, 2], {}, {"state_dict": {}}, {"state_dict": 3}, {"state_dict": [1]}],
)
def test_a_file_without_weights_by_name_is_refused(tmp_path: Path, content: object) -> None:
    assert "holds no weights by name" in refusal(save(tmp_path, content))


def test_a_dictionary_of_other_things_is_refused(tmp_path: Path) -> None:
    assert "more than weights" in refusal(save(tmp_path, {"epoch": 3, "lr": 0.1}))


def test_one_missing_key_is_named(tmp_path: Path) -> None:
    path = save(tmp_path, checkpoint(published(layer2__1__bn2__running_var=None)))
    assert "it lacks layer2.1.bn2.running_var;" in refusal(path)


def test_the_first_missing_keys_of_a_partial_checkpoint_are_named_and_counted(
    tmp_path: Path,
) -> None:
    state = {k: v for k, v in published().items() if not k.startswith("module.layer2.1.")}
    # 3 convolutions and 3 x 4 tensors of batch normalisation.
    words = "it lacks layer2.1.conv1.weight, layer2.1.bn1.weight, layer2.1.bn1.bias and 12 more;"
    assert words in refusal(save(tmp_path, checkpoint(state)))


def test_unexpected_keys_are_named(tmp_path: Path) -> None:
    path = save(tmp_path, checkpoint(published(layer9__weight=torch.ones(2))))
    assert "it has unexpected layer9.weight;" in refusal(path)


def test_other_shapes_are_named_with_both(tmp_path: Path) -> None:
    path = save(tmp_path, checkpoint(published(conv1__weight=torch.ones(16, 3, 3, 3, 3))))
    words = "it has other shapes: conv1.weight (16, 3, 3, 3, 3) instead of (16, 3, 7, 7, 7);"
    assert words in refusal(path)


def test_weights_of_another_network_are_refused_with_all_differences(tmp_path: Path) -> None:
    path = save(tmp_path, make_small_resnext(400, torch.Generator().manual_seed(0)).state_dict())
    words = refusal(path)
    for part in ("it lacks layer2.1.conv1.weight", "it has unexpected layer3.0.", "shapes: conv1."):
        assert part in words
