"""Commands on the pages about images in files: every one has options and experiments that exist."""

import re
import shlex
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from classification.image_recipes import ImageConfig
from classification.recipes import resolved, run_name
from classification.train import TASK
from data_prep.imagenet_lt import read_class_counts

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "docs/imagenet-lt.md", ROOT / "classification/README.md"]
EXAMPLE = PAGES[0]
_BLOCK = re.compile(r"^```\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_TRAIN = "classification.train"


def commands(page: Path) -> list[list[str]]:
    """The words of every command line of the page's blocks, the shell's variables put in."""
    found, values = [], {}
    code = "".join(_BLOCK.findall(page.read_text())).replace("\\\n", " ")
    for written in code.splitlines():
        line = re.sub(r"\$(\w+)", lambda match: values.get(match[1], match[0]), written)
        if name := re.match(r'(\w+)="(.*)"', line):
            values[name[1]] = name[2]
        elif re.match(r"python |torchrun |./run_all|CACHE=", line):
            found.append(shlex.split(line, comments=True))
    return found


def trained(page: Path) -> list[list[str]]:
    return [words[words.index(_TRAIN) + 1 :] for words in commands(page) if _TRAIN in words]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_training_commands_are_runs(page: Path) -> None:
    runs = trained(page)
    assert len(runs) >= 4
    for words in runs:
        assert run_name(resolved(TASK.parse(words).config))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_experiments_of_the_pages_exist(page: Path) -> None:
    calls = [words for words in commands(page) if "./run_all.sh" in words]
    assert len(calls) >= 2
    for words in calls:
        own = words[words.index("./run_all.sh") + 1 :]
        command = ["./run_all.sh", "--no-setup", "--dry-run", *own]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, "")


def test_the_examples_runs_have_the_names_that_it_shows() -> None:
    text = EXAMPLE.read_text()
    own = [words for words in trained(EXAMPLE) if words[0] == "image-folder"]
    assert len(own) == 2
    digest = text.split("\ndigest ")[1][:12]
    shown = re.findall(r"runs/image-folder/(\S+)/record\.json", text)
    for words, short in zip(own, shown, strict=True):
        config = resolved(TASK.parse(words).config)
        assert isinstance(config, ImageConfig)
        name = run_name(replace(config, lists=digest))
        # The page leaves parts out, at '...'.
        assert re.fullmatch(".*".join(map(re.escape, short.split("..."))), name)


def test_the_examples_learning_rate_follows_the_rule_for_its_batch() -> None:
    recipe = TASK.parse(["image-folder"]).config
    for words in trained(EXAMPLE):
        config = TASK.parse(words).config
        if config.recipe_name == "image-folder":
            ratio = config.batch_size / recipe.batch_size
            assert config.learning_rate == pytest.approx(recipe.learning_rate * ratio)


def test_numbers_of_the_page_are_those_of_the_class_profile() -> None:
    text, counts = EXAMPLE.read_text(), read_class_counts()[1]
    images = sum(counts)
    rare = sum(count / images < 4.3e-4 for count in counts)
    assert f"{images:,} images" in text
    assert f"the {rare} classes of fewer than 50 images are rare" in text
    assert max(count for count in counts if count / images < 4.3e-4) == 49
    assert f"the last batch of an epoch has {images % 512} images" in text
    square = 3 * 256**2
    assert f"{square:,} bytes" in text
    assert f"{square * images / 1e9:.1f} GB for the" in text
    assert f"{square * (images + 20_000 + 50_000) / 1e9:.1f} GB with the" in text
