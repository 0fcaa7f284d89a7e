from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from common.errors import UserError
from common.training.arguments import RunArguments, parse_command_line
from common.training.settings import RunConfig

CONFIG = RunConfig(dataset="made", epochs=3)


@dataclass(frozen=True, kw_only=True)
class Arguments(RunArguments):
    config: RunConfig


RECIPES = {"made": CONFIG, "made-short": replace(CONFIG, epochs=1)}


def parse(*words: str) -> Arguments:
    return parse_command_line(words, "made.train", RECIPES, Arguments)


def test_a_command_line_is_a_recipe_and_what_departs_from_it() -> None:
    assert parse("made") == Arguments(config=CONFIG)
    assert parse("made-short").config.epochs == 1
    changed = parse("made", "--config.epochs", "7", "--out", "there", "--threads", "2")
    assert changed == Arguments(config=replace(CONFIG, epochs=7), out=Path("there"), threads=2)


@pytest.mark.parametrize("words", [(), ("other",), ("--out", "x")])
def test_without_a_recipe_the_known_ones_are_named(words: tuple[str, ...]) -> None:
    with pytest.raises(UserError, match=r"first argument .* one of: made, made-short\.$"):
        parse(*words)


def test_help_without_a_recipe_names_them(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        parse("--help")
    assert "python -m made.train {made, made-short}" in capsys.readouterr().out


@pytest.mark.parametrize("group", ["..", ".", "", "a/b", "/tmp", "a/../..", "a\0b"])
def test_a_group_is_a_folder_within_out(group: str) -> None:
    with pytest.raises(UserError, match=r"--group .* must be the name of one folder within --out"):
        Arguments(config=CONFIG, group=group)
    assert parse("made", "--group", "..a").group == "..a"


@pytest.mark.parametrize("seconds", ["-1", "nan", "-inf"])
def test_the_time_between_checkpoints_is_not_negative(seconds: str) -> None:
    with pytest.raises(UserError, match="--checkpoint-seconds must be at least 0"):
        parse("made", f"--checkpoint-seconds={seconds}")
    assert parse("made", "--checkpoint-seconds", "0").checkpoint_seconds == 0


def test_help_says_which_settings_change_the_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        parse("made", "--help")
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "Another number sums in another order" in said
    assert "nothing here" not in said


@pytest.mark.parametrize(("option", "least"), [("--threads", 1), ("--workers", 0)])
def test_threads_and_workers_have_a_least_number(option: str, least: int) -> None:
    with pytest.raises(UserError, match=f"^{option} must be at least {least}, not {least - 1}"):
        parse("made", f"{option}={least - 1}")
    assert parse("made", f"{option}={least}")
