import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from common.tau import (
    TAU_LAWS,
    LawOptions,
    bias_bound,
    parse_tau,
    performance_bias,
    performance_ratio,
    tau_from_performance,
    tau_law,
)

thorough = settings(deadline=None, max_examples=80, derandomize=True)
accuracies = st.lists(st.floats(0, 1), min_size=1, max_size=8)
epsilons = st.floats(1e-4, 0.5)
GROWTH_LAWS = ("linear", "polynomial", "logarithmic", "sigmoid")
PAPER = LawOptions()


def double(values: list[float] | float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def slow_bias(accuracy: list[float], eps: float) -> float:
    """Eq. 5, class by class."""
    largest, smallest = accuracy[0], accuracy[0]
    for a in accuracy:
        largest, smallest = max(largest, a), min(smallest, a)
    return max(largest / (smallest + eps) - 1, 0)


def slow_sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def slow_tau(law: str, accuracy: list[float], t_max: float, eps: float, power: float) -> float:
    """Eqs. 7-10 as printed, Eq. 9 without its minus, and the two versions of the authors' code."""
    bias, bound = slow_bias(accuracy, eps), 1 / eps - 1
    ratio = max(accuracy) / (min(accuracy) + eps)
    match law:
        case "linear":
            return bias / bound * t_max
        case "polynomial":
            return float((bias / bound) ** power * t_max)
        case "logarithmic":
            return t_max / math.log(bound + 1) * math.log(bias + 1)
        case "sigmoid":
            return t_max * (2 / (1 + math.exp(-bias)) - 1)
        case "sigmoid-accv":
            return 2 * slow_sigmoid(ratio - 1)
        case _:
            return slow_sigmoid(ratio)


@pytest.mark.parametrize("law", TAU_LAWS)
@thorough
@given(accuracies, st.floats(0, 10), epsilons, st.floats(1, 4))
def test_law_equals_the_equation_written_out(
    law: str, accuracy: list[float], t_max: float, eps: float, power: float
) -> None:
    tau = tau_from_performance(law, double(accuracy), LawOptions(t_max, eps, power))
    expected = slow_tau(law, accuracy, t_max, eps, power)
    assert float(tau) == pytest.approx(expected, rel=1e-9, abs=1e-12)


# Accuracies 0.9 and 0.29: the fraction of Eq. 5 is 0.9 / 0.30 = 3, the bias 2.
@pytest.mark.parametrize(
    ("law", "expected"),
    [
        ("linear", 2 / 99 * 5),
        ("polynomial", 4 / 9801 * 5),
        ("logarithmic", 5 * 0.4771212547 / 2),  # log10(3) / log10(100)
        ("sigmoid", 5 * 0.7615941560),  # 2 s(2) - 1 = tanh(1)
        ("sigmoid-accv", 1.7615941560),
        ("sigmoid-code", 0.9525741268),
    ],
)
def test_hand_worked_tau_of_two_classes(law: str, expected: float) -> None:
    assert float(tau_from_performance(law, double([0.9, 0.29]))) == pytest.approx(expected)


def test_every_law_has_a_hand_worked_value_and_is_public() -> None:
    assert set(TAU_LAWS) == {*GROWTH_LAWS, "sigmoid-accv", "sigmoid-code"}


@thorough
@given(accuracies, epsilons)
def test_bias_is_at_least_0_and_at_most_its_bound(accuracy: list[float], eps: float) -> None:
    bias = float(performance_bias(double(accuracy), eps))
    assert 0 <= bias <= bias_bound(eps) * (1 + 1e-12)


@thorough
@given(st.floats(0, 1), st.integers(1, 6), epsilons)
def test_equal_accuracies_give_zero_bias(accuracy: float, classes: int, eps: float) -> None:
    assert float(performance_bias(double([accuracy] * classes), eps)) == 0


def test_bias_reaches_its_bound_of_99_when_one_class_is_perfect_and_one_hopeless() -> None:
    assert bias_bound() == pytest.approx(99)
    assert float(performance_bias(double([1.0, 0.0]))) == pytest.approx(99)


@thorough
@given(accuracies, st.permutations(range(8)))
def test_bias_does_not_depend_on_the_order_of_the_classes(
    accuracy: list[float], order: list[int]
) -> None:
    shuffled = [accuracy[i] for i in order if i < len(accuracy)]
    assert performance_bias(double(accuracy)) == performance_bias(double(shuffled))


def test_bias_grows_when_a_class_falls_behind() -> None:
    biases = [float(performance_bias(double([0.9, 0.8, a]))) for a in (0.8, 0.5, 0.2, 0.0)]
    assert biases == sorted(biases)
    assert len(set(biases)) == 4


@thorough
@given(accuracies, st.integers(0, 3))
def test_classes_not_measured_do_not_count_for_the_bias(accuracy: list[float], number: int) -> None:
    with_gaps = double([math.nan] * number + accuracy)
    assert performance_bias(with_gaps) == performance_bias(double(accuracy))


def test_no_measured_class_means_no_bias() -> None:
    nothing = double([math.nan, math.nan])
    assert float(performance_ratio(nothing)) == 1
    assert float(performance_bias(nothing)) == 0
    assert float(tau_from_performance("sigmoid", nothing)) == 0


@pytest.mark.parametrize("law", GROWTH_LAWS)
@thorough
@given(first=st.floats(0, 99), second=st.floats(0, 99))
def test_tau_increases_with_bias_between_0_and_its_maximum(
    law: str, first: float, second: float
) -> None:
    low, high = sorted((first, second))
    tau_low, tau_high = (float(TAU_LAWS[law](double(bias) + 1, PAPER)) for bias in (low, high))
    assert 0 <= tau_low <= tau_high <= 5 * (1 + 1e-12)


@pytest.mark.parametrize("law", GROWTH_LAWS)
def test_tau_is_0_without_bias_and_its_maximum_at_the_largest_bias(law: str) -> None:
    assert float(TAU_LAWS[law](double(0.0) + 1, PAPER)) == 0
    assert float(TAU_LAWS[law](double(99.0) + 1, PAPER)) == pytest.approx(5)


@thorough
@given(st.floats(0.1, 98))
def test_sigmoid_grows_fastest_and_polynomial_slowest(bias: float) -> None:
    sigmoid, logarithmic, linear, polynomial = (
        float(TAU_LAWS[law](double(bias) + 1, PAPER))
        for law in ("sigmoid", "logarithmic", "linear", "polynomial")
    )
    assert sigmoid >= logarithmic > linear > polynomial


def test_polynomial_of_power_1_is_linear() -> None:
    ratio = torch.linspace(1, 100, 12, dtype=torch.float64)
    polynomial = TAU_LAWS["polynomial"](ratio, LawOptions(power=1.0))
    torch.testing.assert_close(polynomial, TAU_LAWS["linear"](ratio, PAPER))


def test_laws_work_element_by_element() -> None:
    ratios = torch.linspace(0.5, 100, 6, dtype=torch.float64).view(2, 3)
    for law in TAU_LAWS.values():
        one_by_one = torch.stack([law(ratio, PAPER) for ratio in ratios.flatten()])
        torch.testing.assert_close(law(ratios, PAPER).flatten(), one_by_one)


@thorough
@given(accuracies)
def test_the_other_sigmoids_stay_in_their_ranges(accuracy: list[float]) -> None:
    accv = float(tau_from_performance("sigmoid-accv", double(accuracy)))
    code = float(tau_from_performance("sigmoid-code", double(accuracy)))
    assert 2 * slow_sigmoid(-1) <= accv <= 2
    assert 0.5 <= code <= 1


def test_the_other_sigmoids_do_not_vanish_for_a_balanced_model() -> None:
    balanced = double([0.99, 0.99])  # fraction 0.99 / 1.00
    assert float(tau_from_performance("sigmoid", balanced)) == 0
    expected_accv, expected_code = 2 * slow_sigmoid(-0.01), slow_sigmoid(0.99)
    assert float(tau_from_performance("sigmoid-accv", balanced)) == pytest.approx(expected_accv)
    assert float(tau_from_performance("sigmoid-code", balanced)) == pytest.approx(expected_code)


@pytest.mark.parametrize("law", GROWTH_LAWS)
def test_tau_max_scales_the_four_laws(law: str) -> None:
    performance = double([0.9, 0.4])
    once = tau_from_performance(law, performance, LawOptions(2.0))
    twice = tau_from_performance(law, performance, LawOptions(4.0))
    torch.testing.assert_close(twice, 2 * once)


@pytest.mark.parametrize("eps", [0.0, -0.01, 1.0, math.nan])
def test_eps_outside_0_1_is_refused(eps: float) -> None:
    with pytest.raises(ValueError, match="eps must be between 0 and 1"):
        performance_bias(double([0.5, 0.6]), eps)
    with pytest.raises(ValueError, match="eps must be between 0 and 1"):
        bias_bound(eps)
    with pytest.raises(ValueError, match="eps must be between 0 and 1"):
        LawOptions(eps=eps)


@pytest.mark.parametrize("eps", [1e-320, 1e-31])
def test_eps_so_small_that_a_bias_would_be_endless_is_refused(eps: float) -> None:
    with pytest.raises(ValueError, match="eps must be at least 1e-30"):
        performance_bias(double([0.5, 0.6]), eps)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("law", TAU_LAWS)
def test_tau_is_finite_up_to_the_limits_of_its_constants(law: str, dtype: torch.dtype) -> None:
    performance = torch.tensor([1.0, 0.0], dtype=dtype)
    tau = tau_from_performance(law, performance, LawOptions(1e30, 1e-30, 1e30))
    assert math.isfinite(float(tau))
    assert math.isfinite(float(performance_bias(performance, 1e-30)))


@pytest.mark.parametrize("tau_max", [-1.0, 1e308, math.inf, math.nan])
def test_negative_or_endless_tau_max_is_refused(tau_max: float) -> None:
    with pytest.raises(ValueError, match="tau_max must be at least 0"):
        LawOptions(tau_max=tau_max)


@pytest.mark.parametrize("power", [0.5, -2.0, math.inf, math.nan])
def test_power_below_1_is_refused(power: float) -> None:
    with pytest.raises(ValueError, match="power must be at least 1"):
        LawOptions(power=power)


def test_unknown_law_is_refused_with_the_known_ones_named() -> None:
    with pytest.raises(ValueError, match="linear, polynomial, logarithmic, sigmoid"):
        tau_from_performance("quadratic", double([0.5]))


@pytest.mark.parametrize(
    ("text", "value"), [("0", 0.0), ("1.5", 1.5), (2, 2.0), (0.5, 0.5), ("linear", "linear")]
)
def test_tau_is_a_number_or_a_law(text: str | float, value: float | str) -> None:
    parsed = parse_tau(text)
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize("text", ["-0.5", -1.0, "nan", "inf", math.inf, "sigmoidal", ""])
def test_negative_endless_or_unknown_tau_is_refused(text: str | float) -> None:
    with pytest.raises(ValueError, match="tau must be a"):
        parse_tau(text)


@pytest.mark.parametrize("tau", [[1.0, 2.0], -0.1, math.nan, math.inf])
def test_a_law_of_ones_own_must_give_an_exponent(tau: float | list[float]) -> None:
    with pytest.raises(ValueError, match="one finite number >= 0"):
        tau_from_performance(lambda ratio, options: torch.tensor(tau), double([0.5]))


def test_a_name_that_is_taken_is_refused() -> None:
    with pytest.raises(ValueError, match="'sigmoid' already"):
        tau_law("sigmoid")(TAU_LAWS["linear"])
