"""Settings that every task has, on a made-up data set."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import pytest

from common.errors import UserError
from common.training.settings import (
    CDB_METHODS,
    Limits,
    RunConfig,
    changed_settings,
    option,
    plain,
    resolved_tau,
    uses_difficulty,
    with_earlier,
    with_limits,
)


@dataclass(frozen=True)
class Made(RunConfig):
    dataset: Literal["made"] = "made"
    method: Literal["ce", "focal", "cdb-s"] = "ce"
    places: tuple[int, ...] = (1, 2)
    share: float = 0.5
    used_by: ClassVar[Mapping[str, tuple[str, ...]]] = {**RunConfig.used_by, "share": ("focal",)}
    limits: ClassVar[Limits] = with_limits(RunConfig.limits, at_least={"share": 0.25})


def test_limits_are_added_to_those_of_all_tasks() -> None:
    limits = with_limits({"above": {"a": 1.0}}, above={"b": 2.0}, at_most={"a": 5.0})
    assert limits == {"at least": {}, "at most": {"a": 5.0}, "below": {}, "above": {"a": 1, "b": 2}}
    with pytest.raises(UserError, match=r"^--share must be at least 0.25, not 0.2\.$"):
        Made(method="focal", share=0.2)
    with pytest.raises(UserError, match=r"^--momentum must be below 1, not 1\.$"):
        Made(momentum=1)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_are_refused(value: float) -> None:
    for name in ("learning_rate", "weight_decay", "momentum"):
        with pytest.raises(UserError, match=f"^{option(name)} must be .*, not {value}"):
            Made(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"method": "cb"}, "--method cb is not one of ce, focal, cdb-s."),
        ({"dataset": "other"}, "--dataset other is not one of made."),
        (
            {"tau": "1"},
            "--tau 1 has no effect on --method ce; leave it out, or choose cdb-s.",
        ),
        (
            {"share": 0.75},
            "--share 0.75 has no effect on --method ce; leave it out, or choose focal.",
        ),
        # No method of this data set has it.
        ({"cfs_q": 1.0}, "--cfs-q 1.0 has no effect on --method ce; leave it out."),
        ({"method": "cdb-s", "tau": "steep"}, "--tau steep is refused: tau must be a number"),
    ],
)
def test_a_contradiction_is_refused_with_the_option_and_the_remedy(
    change: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError) as refusal:
        Made(**change)
    assert str(refusal.value).startswith(words)


def test_the_methods_of_the_paper_use_difficulty_and_no_other() -> None:
    assert [m for m in ("ce", "cb", "cdb-s", "cdb-w-ce", "cdb-w-fl") if uses_difficulty(m)] == [
        *CDB_METHODS
    ]


def test_tau_is_recorded_in_one_spelling() -> None:
    cdb = Made(method="cdb-s")
    assert resolved_tau(cdb) == "sigmoid"
    assert resolved_tau(replace(cdb, tau="2")) == resolved_tau(replace(cdb, tau="2.00")) == "2.0"
    assert resolved_tau(replace(cdb, tau="linear")) == "linear"
    assert resolved_tau(Made()) is None
    assert (cdb.variant, replace(cdb, tau="2.0").variant) == ("", "tau=2.0")


def test_settings_as_json_gives_them_back_make_lists_of_tuples() -> None:
    settings = plain(Made())
    assert settings["places"] == [1, 2]
    assert settings["tau"] is None
    assert Made(**(settings | {"places": (1, 2)})) == Made()


def test_a_name_tells_the_settings_that_are_not_the_usual_ones() -> None:
    usual = Made()
    changed = replace(usual, places=(3, 5), batch_size=7, seed=2)
    assert changed_settings(changed, usual, {"seed"}) == ["batch-size-7", "places-3-5"]
    assert changed_settings(usual, usual, set()) == []


@dataclass(frozen=True)
class Later(Made):
    """Its share came after records of focal had been made with 0.75."""

    earlier: ClassVar[Mapping[str, Any]] = {"share": 0.75}


@pytest.mark.parametrize(
    ("changes", "recorded", "name"),
    [
        ({}, {}, []),
        ({"method": "focal", "share": 0.75}, {}, []),
        ({"method": "focal"}, {"share": 0.5}, ["share-0.5"]),
    ],
)
def test_a_later_setting_is_recorded_and_named_where_a_run_differs_from_the_earlier_ones(
    changes: dict[str, Any], recorded: dict[str, float], name: list[str]
) -> None:
    config = Later(**changes)
    settings = plain(config)
    assert {key: settings[key] for key in settings.keys() & {"share"}} == recorded
    assert changed_settings(config, Later(method=config.method), set()) == name
    read = with_earlier(Later, settings)
    assert Later(**(read | {"places": (1, 2)})) == config


def test_the_learning_rate_is_constant_where_a_task_says_nothing_else() -> None:
    assert {Made().learning_rate_at(epoch, 0.5) for epoch in range(3)} == {0.001}
    assert option("learning_rate") == "--learning-rate"
    assert (Made().recipe_name, Made().table_method) == ("made", "ce")
