"""Two and three processes, each with a part of the samples, against one process with all."""

import copy
import multiprocessing
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.multiprocessing.spawn import start_processes

from common.distributed import all_reduce_sum, rank, world_size
from common.training.batch_norm import CpuSyncBatchNorm, synchronize_batch_norm
from tests.ranks import group_of

N, C = 12, 3
SHAPES = {"1d": (N, C), "1d series": (N, C, 4), "2d": (N, C, 3, 2), "3d": (N, C, 2, 3, 2)}
LAYERS = {"1d": nn.BatchNorm1d, "1d series": nn.BatchNorm1d, "2d": nn.BatchNorm2d,
          "3d": nn.BatchNorm3d}  # fmt: skip
OPTIONS: dict[str, dict[str, Any]] = {
    "default": {}, "cumulative": {"momentum": None}, "plain": {"affine": False},
    "untracked": {"track_running_stats": False},
}  # fmt: skip
SHARES = {2: {"even": (6, 6), "uneven": (9, 3), "one empty": (12, 0)}, 3: {"uneven": (1, 4, 7)}}
CASES = [(kind, option) for kind in SHAPES for option in OPTIONS]
Result = dict[str, Any]


def samples(kind: str) -> tuple[Tensor, Tensor]:
    """Input with a mean far from 0, and what its output is multiplied by in the loss."""
    generator = torch.Generator().manual_seed(0)
    shape = SHAPES[kind]
    values = 50 + 3 * torch.randn(shape, generator=generator, dtype=torch.float64)
    return values, torch.randn(shape, generator=generator, dtype=torch.float64)


def layer(kind: str, option: str) -> nn.Module:
    result = LAYERS[kind](C, **OPTIONS[option]).double()
    generator = torch.Generator().manual_seed(1)
    for parameter in result.parameters():
        nn.init.uniform_(parameter, 0.5, 1.5, generator=generator)
    return result


def run(norm: nn.Module, kind: str, part: slice) -> Result:
    """Two training steps on a part of the samples, then an evaluation."""
    values, factors = (whole[part] for whole in samples(kind))
    values.requires_grad_()
    norm(values.detach() + 1)
    output = norm(values)
    (output * factors).sum().backward()
    return {
        "output": output.detach(),
        "input": values.grad,
        "parameters": [p.grad for p in norm.parameters()],
        "state": copy.deepcopy(norm.state_dict()),
        "evaluation": norm.eval()(samples(kind)[0]).detach(),
    }


def small_model() -> nn.Sequential:
    model = nn.Sequential(
        nn.Conv3d(1, C, 3, bias=False), nn.BatchNorm3d(C), nn.ReLU(),
        nn.Conv3d(C, C, 1, bias=False), nn.Sequential(nn.BatchNorm3d(C)), nn.Flatten(),
    )  # fmt: skip
    generator = torch.Generator().manual_seed(2)
    for parameter in model.parameters():
        nn.init.uniform_(parameter, 0.1, 0.9, generator=generator)
    return model.double()


def trained_model(model: nn.Module, part: slice = slice(None)) -> dict[str, Tensor]:
    """Three steps of SGD on the mean of the loss, the ranks' gradients averaged."""
    clips = torch.randn(N, 1, 4, 4, 4, generator=torch.Generator().manual_seed(3)).double()[part]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        model(clips).square().mul(torch.arange(8 * C)).mean().backward()
        for parameter in model.parameters():
            assert parameter.grad is not None
            parameter.grad = all_reduce_sum(parameter.grad) / world_size()
        optimizer.step()
    return model.state_dict()


def refused() -> str:
    alone = synchronize_batch_norm(nn.BatchNorm1d(C))
    try:
        alone(torch.zeros(1 if rank() == 0 else 0, C))
    except ValueError as error:
        return str(error)
    return "not refused"


def bfloat16_output() -> Tensor:
    norm = synchronize_batch_norm(nn.BatchNorm1d(C))
    values = samples("1d")[0].bfloat16().chunk(world_size())[rank()].requires_grad_()
    output: Tensor = norm(values)
    output.sum().backward()
    assert values.grad is not None
    assert values.grad.dtype == torch.bfloat16
    return output.detach()


def measure(shares: dict[str, tuple[int, ...]]) -> Result:
    results: Result = {}
    for share, sizes in shares.items():
        part = slice(sum(sizes[: rank()]), sum(sizes[: rank() + 1]))
        for kind, option in CASES:
            norm = synchronize_batch_norm(layer(kind, option))
            assert type(norm) is CpuSyncBatchNorm
            results[share, kind, option] = run(norm, kind, part)
    results["refused"], results["bfloat16"] = refused(), bfloat16_output()
    part = slice(rank() * N // world_size(), (rank() + 1) * N // world_size())
    results["model"] = trained_model(synchronize_batch_norm(small_model()), part)
    results["not synchronised"] = trained_model(small_model(), part)
    return results


def run_rank(number: int, folder: str) -> None:
    torch.set_num_threads(1)
    # The same processes with each number of ranks: starting them takes longest.
    for ranks, shares in SHARES.items():
        if number < ranks:
            with group_of(number, ranks, Path(folder) / f"meeting-point-{ranks}"):
                torch.save(measure(shares), Path(folder) / f"{ranks}-{number}.pt")


@pytest.fixture(scope="module")
def all_results(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[Result]]:
    folder = tmp_path_factory.mktemp("ranks")
    # One process imports torch and forks into the ranks.
    multiprocessing.set_forkserver_preload(["torch", "pytest", "common.training.batch_norm"])
    start_processes(run_rank, (str(folder),), nprocs=max(SHARES), start_method="forkserver")
    return {n: [torch.load(folder / f"{n}-{r}.pt") for r in range(n)] for n in SHARES}


@pytest.fixture(params=SHARES)
def results(request: pytest.FixtureRequest, all_results: dict[int, list[Result]]) -> list[Result]:
    return all_results[request.param]


def assert_close(first: Tensor, second: Tensor) -> None:
    torch.testing.assert_close(first, second, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("kind", "option"), CASES)
def test_ranks_together_equal_one_process(results: list[Result], kind: str, option: str) -> None:
    whole = run(layer(kind, option), kind, slice(None))
    for share in SHARES[len(results)]:
        parts = [result[share, kind, option] for result in results]
        for name in ("output", "input"):
            assert_close(torch.cat([part[name] for part in parts]), whole[name])
        for number, expected in enumerate(whole["parameters"]):
            assert_close(torch.stack([p["parameters"][number] for p in parts]).sum(0), expected)
        for part in parts:
            assert part["state"].keys() == whole["state"].keys()
            for name, expected in whole["state"].items():
                assert_close(part["state"][name], expected)
            assert_close(part["evaluation"], whole["evaluation"])


def test_training_a_network_on_several_ranks_equals_one_process(results: list[Result]) -> None:
    expected = trained_model(small_model())
    assert any("running_mean" in name for name in expected)
    for result in results:
        assert list(result["model"]) == list(expected)
        for name, value in expected.items():
            assert_close(result["model"][name], value)


def test_without_synchronisation_the_network_differs(results: list[Result]) -> None:
    expected = trained_model(small_model())["4.0.running_var"]
    found = results[0]["not synchronised"]["4.0.running_var"]
    assert not torch.allclose(found, expected, rtol=1e-3)


def test_a_single_value_on_all_ranks_is_refused_on_each(results: list[Result]) -> None:
    for result in results:
        assert result["refused"].endswith("two or more values a channel, not 1")


def test_bfloat16_is_normalised_in_float32_and_stays_bfloat16(results: list[Result]) -> None:
    output = torch.cat([result["bfloat16"] for result in results])
    assert output.dtype == torch.bfloat16
    expected = nn.BatchNorm1d(C)(samples("1d")[0].bfloat16().float())
    torch.testing.assert_close(output.float(), expected, rtol=1e-2, atol=1e-2)


def test_without_a_process_group_nothing_changes() -> None:
    model = small_model()
    layers = list(model.modules())
    assert synchronize_batch_norm(model) is model
    assert all(a is b for a, b in zip(model.modules(), layers, strict=True))


@pytest.mark.parametrize("option", OPTIONS)
def test_a_converted_layer_keeps_its_parameters_buffers_mode_and_names(option: str) -> None:
    original = nn.BatchNorm2d(C, eps=0.25, **OPTIONS[option]).eval()
    converted = CpuSyncBatchNorm.like(original)
    assert not converted.training
    assert converted.eps == 0.25
    assert converted.momentum == original.momentum
    for ours, theirs in zip(converted.parameters(), original.parameters(), strict=True):
        assert ours is theirs
    state = original.state_dict()
    assert list(converted.state_dict()) == list(state)
    for name, value in converted.state_dict().items():
        assert value.data_ptr() == state[name].data_ptr()


def test_alone_a_converted_layer_is_torch_s_batch_normalisation() -> None:
    ours = run(CpuSyncBatchNorm.like(layer("3d", "default")), "3d", slice(None))
    theirs = run(layer("3d", "default"), "3d", slice(None))
    assert torch.equal(ours["output"], theirs["output"])
    assert torch.equal(ours["input"], theirs["input"])


def test_on_cuda_the_layers_are_torch_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("common.training.batch_norm.is_distributed", lambda: True)
    model = small_model()
    if torch.cuda.is_available():
        model.cuda()
    else:
        monkeypatch.setattr("common.training.batch_norm._is_on_cuda", lambda model: True)
    model = synchronize_batch_norm(model)
    layers = [type(m) for m in model.modules() if "Norm" in type(m).__name__]
    assert layers == [nn.SyncBatchNorm] * 2


def test_an_input_without_channels_is_refused() -> None:
    with pytest.raises(ValueError, match="two or more dimensions"):
        CpuSyncBatchNorm(C)(torch.zeros(C))
