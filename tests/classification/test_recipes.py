from dataclasses import fields, replace
from typing import Any, get_args, get_type_hints

import pytest

from classification.config import ClassificationConfig
from classification.recipes import (
    MNIST_LT,
    MnistConfig,
    MnistMethod,
    resolved,
    run_name,
)
from common.errors import UserError
from common.training.settings import option
from tests.classification.small_cifar import small_run
from tests.classification.synthetic import METHODS
from tests.classification.trainer import Trainer, only_run, read_record
from tests.settings import used_by

USED_BY = used_by(ClassificationConfig)

MNIST_METHODS = get_args(MnistMethod)
CDB = replace(MNIST_LT, method="cdb-w-ce")
# Another value of every field, for a method whose tau is free.
OTHERS: dict[str, Any] = {
    "method": "cdb-w-fl", "imbalance": 199.0, "seed": 1, "split_seed": 7, "tau": "2",
    "tau_max": 1.0, "tau_power": 3.0, "eps": 0.1, "normalize_weights": False,
    "focal_gamma": 2.0, "cfs_q": 0.25, "cb_beta": 0.9, "eql_gamma": 0.5, "eql_threshold": 0.1,
    "l2rw_batch_size": 10, "epochs": 3, "batch_size": 50, "learning_rate": 0.1,
    "momentum": 0.5, "weight_decay": 0.0, "sampler_unit": "image", "la_tau": 1.5,
    "norm_tau": 0.5, "mixup_alpha": 0.4, "loss_reduction": "sum",
    "difficulty_average": 0.5, "difficulty_prior": 2.0, "weights_from_epoch": 2,
}  # fmt: skip
for _name, _choice in get_type_hints(MnistConfig).items():
    if _name in ("architecture", "initialisation", "input_scaling"):
        OTHERS[_name] = next(c for c in get_args(_choice) if c != getattr(CDB, _name))


def for_option(name: str) -> MnistConfig:
    """A configuration whose method the option is for."""
    users = USED_BY.get(name, (CDB.method,))
    return CDB if CDB.method in users else replace(CDB, method=users[0])


def test_the_papers_settings() -> None:
    """Sec. 4.1.2, but for the learning rate."""
    assert (MNIST_LT.epochs, MNIST_LT.batch_size) == (100, 100)
    assert (MNIST_LT.momentum, MNIST_LT.weight_decay) == (0.9, 0.0005)
    assert (MNIST_LT.tau_max, MNIST_LT.eps) == (5.0, 0.01)


@pytest.mark.parametrize("method", MNIST_METHODS)
def test_mnist_lt_runs_with_every_method(trainer: Trainer, method: str, tmp_path: Any) -> None:
    ended = trainer.run(tmp_path, "--method", method, "--epochs", "1", "--seed", "3")
    assert ended.code == 0, ended.err
    record = read_record(only_run(tmp_path))
    assert (record["method"], record["seed"], record["dataset"]) == (method, 3, "mnist-lt")
    assert record["run"] == only_run(tmp_path).name


@pytest.mark.parametrize("method", METHODS)
def test_cifar100_lt_runs_with_every_method(trainer: Trainer, method: str) -> None:
    run = trainer.reference(*small_run("cifar100-lt", method))
    record = read_record(run)
    assert (record["method"], record["dataset"]) == (method, "cifar100-lt")
    assert record["run"] == run.name


def test_every_changed_field_gives_another_name() -> None:
    assert OTHERS.keys() == {field.name for field in fields(MnistConfig)} - {"dataset"}
    names = {run_name(for_option(name)) for name in OTHERS}
    usual = len(names)
    for name, value in OTHERS.items():
        assert value != getattr(for_option(name), name)
        names.add(run_name(replace(for_option(name), **{name: value})))
    assert len(names) == usual + len(OTHERS)


@pytest.mark.parametrize("name", [name for name in USED_BY if name in OTHERS])
def test_an_option_is_refused_where_it_has_no_effect(name: str) -> None:
    for method in MNIST_METHODS:
        config = replace(MNIST_LT, method=method)
        if method in USED_BY[name]:
            assert getattr(replace(config, **{name: OTHERS[name]}), name) == OTHERS[name]
            continue
        with pytest.raises(
            UserError, match=rf"{option(name)} .* has no effect on --method {method};"
        ):
            replace(config, **{name: OTHERS[name]})


def test_nearly_equal_numbers_give_another_name() -> None:
    assert run_name(replace(CDB, imbalance=99.00001)) != run_name(CDB)
    assert run_name(replace(CDB, tau="0.1234567")) != run_name(replace(CDB, tau="0.1234568"))
    assert run_name(replace(CDB, eps=0.0123456789)) != run_name(replace(CDB, eps=0.012345678))


def test_one_run_has_one_name_however_it_is_spelt() -> None:
    assert run_name(replace(CDB, tau="2")) == run_name(replace(CDB, tau="2.0"))
    assert run_name(CDB) == run_name(replace(CDB, tau="sigmoid"))
    assert run_name(CDB) == run_name(resolved(CDB))
    assert run_name(replace(CDB, imbalance=199)) == run_name(replace(CDB, imbalance=199.0))
    assert run_name(replace(CDB, seed=3)) == run_name(replace(CDB, seed=3, split_seed=3))


def test_the_names_of_the_papers_runs() -> None:
    assert run_name(MNIST_LT) == "ce_imbalance-99_seed-0"
    assert run_name(CDB) == "cdb-w-ce_tau-sigmoid_imbalance-99_seed-0"
    cdb_s = replace(MNIST_LT, method="cdb-s", tau="0.5", imbalance=199, seed=2)
    assert run_name(cdb_s) == "cdb-s_tau-0.5_imbalance-199_seed-2"


def test_a_name_is_a_file_name() -> None:
    for name, value in OTHERS.items():
        assert "/" not in run_name(replace(for_option(name), **{name: value}))


def test_resolving_fills_in_what_follows_from_other_settings() -> None:
    config = resolved(replace(CDB, seed=4))
    assert (config.tau, config.split_seed) == ("sigmoid", 4)
    assert resolved(config) == config
    assert resolved(replace(MNIST_LT, split_seed=2)).split_seed == 2
    assert resolved(MNIST_LT).tau is None
    assert resolved(replace(CDB, tau="5")).tau == "5.0"


LIMITS: list[tuple[str, tuple[float, ...], tuple[float, ...]]] = [
    ("imbalance", (1, 4999), (0.99, -1)),
    ("seed", (0,), (-1,)),
    ("split_seed", (0,), (-1,)),
    ("tau_max", (0, 9), (-0.1,)),
    ("tau_power", (1,), (0.9,)),
    ("eps", (1e-9, 0.99), (0, -1, 1)),
    ("difficulty_average", (0, 0.99), (-0.1, 1)),
    ("difficulty_prior", (0, 0.5), (-0.1,)),
    ("weights_from_epoch", (0, 2), (-1,)),
    ("focal_gamma", (0,), (-0.1,)),
    ("cfs_q", (0, 1), (-0.1,)),
    ("cb_beta", (0, 0.9999), (-0.1, 1)),
    ("la_tau", (0, 2.5), (-0.1,)),
    ("norm_tau", (0, 2.5), (-0.1,)),
    ("mixup_alpha", (0.01, 8), (0, -0.1)),
    ("eql_gamma", (0, 1), (-0.1, 1.1)),
    ("eql_threshold", (0, 1), (-0.1, 1.1)),
    ("l2rw_batch_size", (1,), (0,)),
    ("epochs", (1,), (0,)),
    ("batch_size", (1,), (0,)),
    ("learning_rate", (1e-9,), (0, -1)),
    ("momentum", (0, 0.99), (-0.1, 1)),
    ("weight_decay", (0,), (-0.1,)),
]


@pytest.mark.parametrize(("name", "good", "bad"), LIMITS)
def test_a_value_out_of_range_is_refused_by_its_option(
    name: str, good: tuple[float, ...], bad: tuple[float, ...]
) -> None:
    for value in good:
        assert getattr(replace(for_option(name), **{name: value}), name) == value  # type: ignore[arg-type]
    for value in (*bad, float("nan"), float("inf"), float("-inf")):
        with pytest.raises(UserError, match=f"{option(name)} must be .*, not {value}"):
            replace(for_option(name), **{name: value})  # type: ignore[arg-type]


def test_every_number_has_a_limit() -> None:
    numbers = {
        field.name
        for field in fields(MnistConfig)
        if isinstance(field.default, int | float) and not isinstance(field.default, bool)
    }
    assert numbers | {"split_seed"} == {name for name, _, _ in LIMITS}
