"""Methods that change the classifier of what is tested, and nothing of what is trained."""

import copy
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from classification.evaluate import make_model
from classification.models.named_network import NamedNetwork
from classification.training import Training, results
from common.errors import UserError
from common.streams import Streams
from common.training.history import plain_numbers
from common.training.signals import StopRequest
from tests.classification.synthetic import (
    COUNTS,
    config,
    same_weights,
    to_the_end,
    trained,
    trained_cifar,
    training,
    use_small_resnet,
)
from tests.states import assert_same_state, written_and_read
from tests.stopping import StopAfter

POST_HOC = ("logit-adjustment-post-hoc", "tau-normalisation")
SETTINGS = {"logit-adjustment-post-hoc": "la_tau", "tau-normalisation": "norm_tau"}


# By hand.


def as_tested(method: str, classifier: nn.Linear, **changes: object) -> nn.Linear:
    """A classifier of three classes, as the method has it tested."""
    changed = training(method=method, **changes).method.for_evaluation(classifier)
    assert isinstance(changed, nn.Linear)
    return changed


def linear(weight: list[list[float]], bias: list[float]) -> nn.Linear:
    layer = nn.Linear(len(weight[0]), len(weight))
    layer.load_state_dict({"weight": torch.tensor(weight), "bias": torch.tensor(bias)})
    return layer


def test_the_logarithms_of_the_shares_are_taken_off_the_bias() -> None:
    layer = linear([[1.0], [2.0], [3.0]], [0.5, 0.0, -1.0])
    changed = as_tested("logit-adjustment-post-hoc", layer, la_tau=2.0)
    assert COUNTS == (40, 30, 20)
    expected = [0.5 - 2 * math.log(4 / 9), -2 * math.log(1 / 3), -1 - 2 * math.log(2 / 9)]
    assert changed.bias.tolist() == pytest.approx(expected)
    assert torch.equal(changed.weight, layer.weight)


def test_class_vectors_are_divided_by_a_power_of_their_length_and_the_bias_is_left_out() -> None:
    layer = linear([[3.0, 4.0], [0.0, 0.25], [6.0, 8.0]], [0.5, 0.0, -1.0])
    assert as_tested("tau-normalisation", layer).weight.tolist() == [
        pytest.approx(row) for row in ([0.6, 0.8], [0.0, 1.0], [0.6, 0.8])
    ]
    half = as_tested("tau-normalisation", layer, norm_tau=0.5)
    roots = [5**0.5, 0.25**0.5, 10**0.5]
    for row, before, root in zip(half.weight.tolist(), layer.weight.tolist(), roots, strict=True):
        assert row == pytest.approx([value / root for value in before])
    assert half.bias.tolist() == [0.0, 0.0, 0.0]


def test_a_factor_of_zero_adjusts_nothing_but_a_bias_that_is_left_out() -> None:
    layer = linear([[1.0], [2.0], [3.0]], [0.5, 0.0, -1.0])
    unadjusted = as_tested("logit-adjustment-post-hoc", layer, la_tau=0.0)
    assert_same_state(dict(unadjusted.state_dict()), dict(layer.state_dict()))
    assert torch.equal(as_tested("tau-normalisation", layer, norm_tau=0.0).weight, layer.weight)


class Network(nn.Module):
    """Its layers stand in no order of their passes, and it says itself which give the logits."""

    def __init__(self, *heads: nn.Module) -> None:
        super().__init__()
        self.heads = nn.ModuleList(heads)
        self.body = nn.Linear(4, 2)


@pytest.mark.parametrize("method", POST_HOC)
def test_the_classifier_is_the_layer_that_the_network_names(method: str) -> None:
    network = NamedNetwork(Network(nn.Linear(2, 3)), ["heads.0"], mixed=False)
    before = copy.deepcopy(network)
    changed = training(method=method).method.for_evaluation(network)
    assert isinstance(changed, NamedNetwork)
    (own,), (plain,) = changed.heads, before.heads
    assert not torch.equal(own.bias, plain.bias)
    assert_same_state(
        dict(changed.network.body.state_dict()), dict(before.network.body.state_dict())
    )
    assert_same_state(dict(network.state_dict()), dict(before.state_dict()))


@pytest.mark.parametrize(
    ("method", "heads", "words"),
    [
        *((m, [nn.Conv2d(2, 3, 1)], "this network has Conv2d; choose") for m in POST_HOC),
        *((m, [nn.Linear(2, 3)] * 2, "has Linear and Linear; choose") for m in POST_HOC),
        *((m, [], "has none; choose") for m in POST_HOC),
        (
            "logit-adjustment-post-hoc", [nn.Linear(2, 3, bias=False)],
            "one linear layer with a bias that gives the logits, this network has a layer without",
        ),
    ],
)  # fmt: skip
def test_a_network_with_another_classifier_is_refused_before_it_is_trained(
    method: str, heads: list[nn.Module], words: str
) -> None:
    run = training(method=method)
    with pytest.raises(UserError, match=words):
        run.method.start(Network(*heads), run.data.train)


def test_class_vectors_without_a_bias_are_normalised_too() -> None:
    layer = nn.Linear(2, 3, bias=False)
    lengths = as_tested("tau-normalisation", layer).weight.norm(dim=1)
    assert lengths.tolist() == pytest.approx([1.0] * 3)


def test_other_methods_have_the_network_itself_tested() -> None:
    for method in ("ce", "logit-adjustment", "cdb-w-ce"):
        run = training(method=method)
        assert run.evaluated() is run.model


# Whole runs beside a literal reference.


def literal_class(method: str, logits: list[float], own: list[list[float]], tau: float) -> int:
    """The class of one image: Menon et al. 2021, Eq. 9, or of w_c / |w_c|^tau (Kang et al. 2020).

    ``own``: of the classifier, its rows; ``logits``: z_c, for the latter without the bias.
    """
    scores = []
    for c, logit in enumerate(logits):
        if method == "logit-adjustment-post-hoc":
            scores.append(logit - tau * math.log(COUNTS[c] / sum(COUNTS)))
        else:
            scores.append(logit / sum(w**2 for w in own[c]) ** (tau / 2))
    return max(range(len(scores)), key=scores.__getitem__)


@torch.no_grad()
def literal_accuracy(
    method: str, model: nn.Module, images: Tensor, labels: Tensor, tau: float
) -> list[float]:
    """Accuracy per class, one image at a time."""
    *_, classifier = (layer for layer in model.modules() if isinstance(layer, nn.Linear))
    bias = classifier.bias.tolist() if method == "tau-normalisation" else [0.0] * len(COUNTS)
    right, total = [0] * len(COUNTS), [0] * len(COUNTS)
    for image, label in zip(images, labels.tolist(), strict=True):
        row = model.eval()(image[None])[0].tolist()
        logits = [z - b for z, b in zip(row, bias, strict=True)]
        right[label] += literal_class(method, logits, classifier.weight.tolist(), tau) == label
        total[label] += 1
    return [r / t for r, t in zip(right, total, strict=True)]


@pytest.mark.parametrize(("method", "tau"), [*zip(POST_HOC, (1.5, 4.0), strict=True)])
def test_difficulty_and_test_set_are_measured_as_by_the_literal_reference(
    method: str, tau: float
) -> None:
    run = trained(method=method, epochs=1, **{SETTINGS[method]: tau})
    plain = trained(method="ce", epochs=1)
    sets = {"difficulty": run.data.difficulty, "test": run.data.test}
    expected = {
        name: literal_accuracy(method, plain.model, part.images, part.labels, tau)
        for name, part in sets.items()
    }
    assert run.history.rows["class_accuracy"][-1] == expected["difficulty"]
    assert expected["difficulty"] != plain.history.rows["class_accuracy"][-1]
    assert results(run).metrics["last"]["class_accuracy"] == expected["test"]


@pytest.mark.parametrize("method", POST_HOC)
@pytest.mark.parametrize("run_of", [trained, trained_cifar])
def test_training_is_that_of_cross_entropy_to_the_bit(
    method: str, run_of: Callable[..., Training], monkeypatch: pytest.MonkeyPatch
) -> None:
    use_small_resnet(monkeypatch)
    ours, plain = run_of(method=method), run_of(method="ce")
    assert same_weights(ours, plain)
    assert ours.history.rows["loss"] == plain.history.rows["loss"]
    assert_same_state(ours.streams.state_dict(), plain.streams.state_dict())
    # Tested and kept is another network.
    assert not torch.equal(_bias(ours.evaluated()), _bias(plain.model))


def _bias(model: nn.Module) -> Tensor:
    *_, classifier = (layer for layer in model.modules() if isinstance(layer, nn.Linear))
    return classifier.bias


@pytest.mark.parametrize("method", POST_HOC)
def test_saved_weights_alone_give_what_was_measured(method: str) -> None:
    """Nothing of the training set is asked for: settings and weights are enough."""
    run = trained(method=method, epochs=2)
    found = results(run)
    weights = written_and_read({name: dict(state) for name, state in found.weights.items()})
    for name, part in weights.items():
        model = make_model(config(method=method), len(COUNTS), Streams(0)).eval()
        model.load_state_dict(part)
        predicted = model(run.data.test.images).argmax(dim=1)
        right = (predicted == run.data.test.labels).double().view(-1)
        by_class = [right[run.data.test.labels == c].mean() for c in range(len(COUNTS))]
        expected = found.metrics[name]["class_accuracy"]
        assert plain_numbers(torch.stack(by_class)) == pytest.approx(expected)
    assert_same_state(weights["last"], dict(run.evaluated().state_dict()))


@pytest.mark.parametrize("method", POST_HOC)
def test_the_best_epoch_is_that_of_the_changed_classifier_on_a_resumed_run_too(
    method: str,
) -> None:
    undisturbed, run = trained(method=method), training(method=method)
    best = copy.deepcopy(undisturbed.history.best)
    assert run.run_epoch(StopRequest())
    run.end_epoch()
    assert not run.run_epoch(StopAfter(3))
    resumed = training(method=method)
    resumed.load_state_dict(written_and_read(run.state_dict()))
    run = to_the_end(resumed)
    assert_same_state(run.history.best, best)
    accuracy = [sum(row) / len(row) for row in run.history.rows["class_accuracy"]]
    assert best["accuracy"] == pytest.approx(max(accuracy))
