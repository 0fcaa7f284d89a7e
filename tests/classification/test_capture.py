"""Captured steps on the CPU: a tape of torch's operations stands for a CUDA graph."""

import contextlib
import copy
import weakref
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from classification.capture import (
    CapturedStep,
    Inputs,
    record_cuda_graph,
    run_and_undo,
    tensors_of,
)
from classification.training import Training
from common.training.schedule import step_schedule
from common.training.signals import StopRequest
from tests.classification.synthetic import (
    CIFAR_COUNTS,
    METHODS,
    SECOND_STAGE_METHODS,
    cifar_training,
    same_weights,
    to_the_end,
    use_small_resnet,
)
from tests.classification.tape import CPU, NothingWaits, at_once, captured, record_on_tape
from tests.states import assert_same_state
from tests.stopping import StopAfter

BATCH, STEPS, LAST = 24, 3, 16  # Samples a step, steps an epoch, samples of the last.
# (recipe, method)
RUNS = [("cifar100-lt", method) for method in METHODS] + [
    (f"cifar100-lt-{classifier}", method)
    for classifier in ("crt", "lws")
    for method in SECOND_STAGE_METHODS
]


@pytest.fixture(autouse=True)
def _small_network(monkeypatch: pytest.MonkeyPatch) -> None:
    use_small_resnet(monkeypatch)


def training(recipe: str = "cifar100-lt", **changes: object) -> Training:
    """A run at its first step; the last batch of an epoch is smaller."""
    assert sum(CIFAR_COUNTS) == (STEPS - 1) * BATCH + LAST
    usual = {"batch_size": BATCH, "epochs": 3, "warmup_epochs": 0.5, "milestones": (1, 2)}
    return cifar_training(None, recipe, **(usual | changes))


def work_itself(work: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """In place of ``record_cuda_graph``, where nothing needs to be as on a GPU."""
    return work


# Whole runs.


@pytest.mark.parametrize(("recipe", "method"), RUNS)
def test_a_run_of_captured_steps_equals_the_eager_run_to_the_bit(recipe: str, method: str) -> None:
    """Warm-up, last smaller batch, weights that change by the epoch, and counts included."""
    eager, run = training(recipe, method=method), captured(training(recipe, method=method))
    to_the_end(eager)
    to_the_end(run)
    assert_same_state(run.state_dict(), eager.state_dict())
    assert len(set(eager.history.rows["learning_rate"])) > 1
    if eager.method.balancer is not None:
        assert len({tuple(weights) for weights in eager.history.rows["class_weights"]}) > 2


@pytest.mark.parametrize("method", ["cdb-w-ce", "cdb-s"])
def test_captured_steps_see_the_weights_at_the_epoch_that_they_are_deferred_to(method: str) -> None:
    settings = {"method": method, "weights_from_epoch": 2, "difficulty_average": 0.5}
    eager, run = training(**settings), captured(training(**settings))
    to_the_end(eager)
    to_the_end(run)
    assert_same_state(run.state_dict(), eager.state_dict())
    first, second, third = eager.history.rows["class_weights"]
    assert first == second == [1.0] * len(CIFAR_COUNTS)
    assert len(set(third)) > 1
    assert not same_weights(run, to_the_end(training(method="ce")))


@pytest.mark.parametrize(
    "settings",
    [
        {"method": "ce"},
        {"method": "meta-weight-net"},
        {"method": "cdb-w-ce", "augmentation": "autoaugment-cutout"},
    ],
    ids=lambda settings: "_".join(settings.values()),
)
def test_a_resumed_run_of_captured_steps_equals_the_eager_run(settings: dict[str, str]) -> None:
    eager, run = training(**settings), captured(training(**settings))
    run.run_epoch(StopAfter(2))
    resumed = training(**settings)
    resumed.load_state_dict(copy.deepcopy(run.state_dict()))
    to_the_end(captured(resumed))
    to_the_end(eager)
    assert_same_state(resumed.state_dict(), eager.state_dict())


@pytest.mark.parametrize(
    ("recipe", "method", "augmentation"),
    [(*run, "crop-flip") for run in RUNS]
    + [
        (recipe, "balanced-softmax", "autoaugment-cutout")
        for recipe in ("cifar100-lt", "cifar100-lt-lws")
    ],
)
def test_no_step_waits_for_the_device_or_draws_random_numbers(
    recipe: str, method: str, augmentation: str
) -> None:
    run = training(recipe, method=method, augmentation=augmentation)

    def step(inputs: Inputs) -> Tensor:
        with NothingWaits():
            return run.train_step(inputs)

    run.step = step
    assert run.run_epoch(StopRequest())


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: float(x.sum()),
        lambda x: bool(x.any()),
        lambda x: x.nonzero(),
        lambda x: x[x > 0],
        lambda x: torch.equal(x, x),
        lambda x: torch.rand(3, generator=torch.Generator()),
    ],
)
def test_what_waits_is_noticed(wait: Callable[[Tensor], object]) -> None:
    with pytest.raises(AssertionError), NothingWaits():
        wait(torch.ones(2))


# The tape is a fair stand-in for a graph.


def test_the_tape_keeps_what_python_decided_and_reads_tensors_anew() -> None:
    number, tensor, total = 2.0, torch.tensor(2.0), torch.zeros(())

    def work() -> Tensor:
        total.add_(tensor * number)
        return total * 1

    repeat = record_on_tape(lambda: [total])(work)
    assert float(total) == 0.0  # Nothing has been executed.
    number = 100.0
    tensor.fill_(3.0)
    first = repeat()
    assert (float(total), float(first)) == (6.0, 6.0)
    assert repeat() is first
    assert float(first) == 12.0


def test_the_tape_shows_a_learning_rate_that_is_a_number() -> None:
    """The stand-in fails where a graph would."""

    def last_loss(replace_rate: bool, capture: bool) -> float:
        run = training(warmup_epochs=3)
        if replace_rate:  # By a number that is set anew in every step.
            set_rate = run.set_rate

            def set_number(rate: float) -> None:
                set_rate(rate)
                run.optimizer.param_groups[0]["lr"] = float(run._rate)

            run.set_rate = set_number  # type: ignore[method-assign]
        to_the_end(captured(run) if capture else run)
        return float(run.history.rows["loss"][-1])

    assert last_loss(False, True) == last_loss(False, False)
    assert last_loss(True, True) != last_loss(True, False)


# CapturedStep by itself.


class Counter:
    """A step that adds its input to a total and multiplies the total by a factor of its own."""

    def __init__(self) -> None:
        self.total, self.calls = torch.zeros(2), 0

    def step(self, inputs: Inputs) -> Tensor:
        self.calls += 1
        self.total.add_(inputs["x"].sum())
        return self.total.sum()

    def captured(self) -> CapturedStep:
        state = lambda: {"total": self.total}  # noqa: E731
        return CapturedStep(self.step, state, CPU, record=record_on_tape(state), warm_up=at_once)


def test_each_batch_size_is_recorded_once() -> None:
    counter = Counter()
    step = counter.captured()
    for size in (3, 3, 2, 3, 2, 2):
        step({"x": torch.ones(size)})
    # Three steps to warm up and one to record, for each of two sizes.
    assert counter.calls == 8
    assert counter.total.tolist() == [15.0, 15.0]


def test_inputs_are_copied_to_where_the_recording_reads_them() -> None:
    counter = Counter()
    step = counter.captured()
    x = torch.tensor([1.0, 2.0])
    assert float(step({"x": x})) == 6.0
    x.zero_()
    assert float(step({"x": torch.tensor([10.0, 0.0])})) == 26.0
    assert x.tolist() == [0.0, 0.0]


def test_recordings_differ_by_the_names_of_their_inputs_too() -> None:
    seen = []

    def step(inputs: Inputs) -> Tensor:
        seen.append(sorted(inputs))
        return torch.zeros(())

    run = CapturedStep(step, dict, CPU, record=work_itself, warm_up=at_once)
    run({"index": torch.zeros(2)})
    run({"index": torch.zeros(2), "draws": torch.zeros(2)})
    assert seen[-1] == ["draws", "index"]


def test_the_first_call_carries_out_exactly_one_step() -> None:
    counter = Counter()
    counter.captured()({"x": torch.ones(4)})
    assert counter.total.tolist() == [4.0, 4.0]


def test_warming_up_has_the_step_run_by_the_given_function() -> None:
    counter, warmed = Counter(), []

    def warm_up(work: Callable[[], object]) -> None:
        work()
        warmed.append(counter.calls)

    step = CapturedStep(
        counter.step, lambda: [counter.total], CPU, record=work_itself, warm_up=warm_up
    )
    step({"x": torch.ones(1)})
    assert warmed == [3]
    assert counter.calls == 4


# run_and_undo.


def test_a_step_is_undone_to_the_bit_and_new_momentum_is_zero() -> None:
    run = training(method="meta-weight-net")
    run._drawn = run._begin_epoch()
    batch = next(run.batches(run._drawn, 0)) | {"draws": torch.arange(12)}
    before = copy.deepcopy(run._changed_by_a_step())
    run_and_undo(lambda: run.train_step(batch), run._changed_by_a_step)
    after = run._changed_by_a_step()
    for part in ("model", "method"):
        assert_same_state(after[part], before[part])
    assert not before["optimizer"]["state"]
    momenta = tensors_of(after["optimizer"]["state"])
    assert sum(int(momentum.count_nonzero()) for momentum in momenta) == 0


def test_momentum_that_was_there_is_put_back() -> None:
    run = training()
    run.run_epoch(StopAfter(2))
    before = copy.deepcopy(run._changed_by_a_step())
    assert before["optimizer"]["state"]
    assert run._drawn is not None
    batch = next(run.batches(run._drawn, run._step))
    run_and_undo(lambda: run.train_step(batch), run._changed_by_a_step)
    assert_same_state(run._changed_by_a_step(), before)


def test_the_work_has_gradients_and_what_is_undone_has_not() -> None:
    weight = nn.Parameter(torch.ones(2))

    def work() -> None:
        (weight * weight).sum().backward()
        with torch.no_grad():
            weight.sub_(1.0)

    run_and_undo(work, lambda: {"weight": weight})
    assert weight.tolist() == [1.0, 1.0]
    assert weight.grad is not None
    assert weight.grad.tolist() == [2.0, 2.0]
    assert weight.is_leaf


def test_the_memory_of_a_copy_that_state_gives_cannot_become_that_of_a_new_tensor() -> None:
    """A copy (a sampler's) beside the live tensors: it is kept until all is undone."""
    given: list[weakref.ref[Tensor]] = []
    kept = torch.arange(64.0)

    def state() -> list[Tensor]:
        copied = kept.clone()
        given.append(weakref.ref(copied))
        return [copied, kept]

    def work() -> None:
        assert given[0]() is not None
        kept.add_(1.0)

    run_and_undo(work, state)
    assert torch.equal(kept, torch.arange(64.0))


def test_tensors_of_finds_every_tensor() -> None:
    a, b, c = (torch.tensor(float(i)) for i in range(3))
    state = {"a": a, "rest": [b, (1, None, {"c": c, "d": "text"})], "rate": 0.1}
    assert [float(t) for t in tensors_of(state)] == [0.0, 1.0, 2.0]


# What a step must see anew.


def test_every_steps_learning_rate_of_the_warm_up_reaches_the_step() -> None:
    run = captured(training(epochs=2, learning_rate=0.05, warmup_epochs=1.5, milestones=()))
    seen = []
    step = run.step

    def remember(inputs: Inputs) -> Tensor:
        before = [p.detach().clone() for p in run.model.parameters()]
        loss = step(inputs)
        momenta = [run.optimizer.state[p]["momentum_buffer"] for p in run.model.parameters()]
        pairs = zip(before, run.model.parameters(), strict=True)
        moved = sum(float((old - new.detach()).abs().sum()) for old, new in pairs)
        seen.append(moved / sum(float(momentum.abs().sum()) for momentum in momenta))
        return loss

    run.step = remember
    to_the_end(run)
    expected = [
        step_schedule(0.05, epoch, (s + 1) / STEPS, warmup_epochs=1.5, milestones=(), decay=0.5)
        for epoch in range(2)
        for s in range(STEPS)
    ]
    assert seen == pytest.approx(expected, rel=1e-3)
    assert len(set(expected)) > STEPS


def test_an_epoch_has_two_recordings_and_they_train() -> None:
    run = to_the_end(captured(training()))
    assert isinstance(run.step, CapturedStep)
    sizes = {dict(shapes)["index"] for shapes in run.step._recorded}
    assert sizes == {(BATCH,), (LAST,)}
    assert not same_weights(run, training())


def test_a_recording_minds_no_other_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that pins the images it reads ahead would else end the recording."""
    modes: list[str] = []

    @contextlib.contextmanager
    def graph(graph: object, capture_error_mode: str = "global") -> Iterator[None]:
        modes.append(capture_error_mode)
        yield

    monkeypatch.setattr(torch.cuda, "CUDAGraph", object)
    monkeypatch.setattr(torch.cuda, "graph", graph)
    record_cuda_graph(lambda: torch.zeros(1))
    assert modes == ["thread_local"]
