"""Each mistake: one sentence that names the option or file and the remedy, exit code 2, no loss."""

import shutil
import signal
from pathlib import Path

import pytest
import torch

from common.training.folder import load_tensors
from tests.classification.trainer import (
    Ended,
    assert_nothing_left_over,
    assert_same_run,
    only_run,
)
from tests.video.synthetic import STEPS, options
from tests.video.trainer import VideoTrainer

RUN = options("cdb-w-ce")
EVERY_EPOCH = ("--checkpoint-seconds", "0")
GROUP = "motion-digits"


def assert_says(ended: Ended, *words: str) -> None:
    """One sentence, alone, with exit code 2."""
    assert ended.code == 2, ended
    (line,) = ended.err.splitlines()
    assert line.startswith("error: ")
    assert line.endswith((".", ".)"))
    assert "Traceback" not in ended.out
    for word in words:
        assert word in line, line


@pytest.fixture
def own_set(verbs: Path, tmp_path: Path) -> Path:
    """A copy of the tiny set that may be spoiled."""
    return shutil.copytree(verbs, tmp_path / "own set")


@pytest.fixture
def begun(trainer: VideoTrainer, tmp_path: Path) -> Path:
    """A run killed in its third epoch, with the checkpoint of the second."""
    at = ("step", 2 * STEPS + 2)
    ended = trainer.run(tmp_path / "out", *RUN, *EVERY_EPOCH, at=at, what="kill")
    assert ended.code == -signal.SIGKILL
    return only_run(tmp_path / "out", GROUP)


def assert_continues(trainer: VideoTrainer, run: Path) -> None:
    """The same command, undisturbed, ends as if nothing had happened."""
    ended = trainer.run(run.parents[1], *RUN)
    assert (ended.code, ended.err) == (0, "")
    assert_same_run(run, trainer.reference(*RUN))
    assert_nothing_left_over(run)


def assert_nothing_trained(out: Path) -> None:
    assert not [path for path in out.rglob("*") if path.suffix == ".pt" or "partial" in path.name]


# The clips.


@pytest.mark.parametrize("recipe", ["egtea-verbs", "motion-digits"])
def test_no_data_folder(trainer: VideoTrainer, tmp_path: Path, recipe: str) -> None:
    folder = tmp_path / "nowhere"
    ended = trainer.run(tmp_path / "out", recipe, "--data", str(folder))
    remedy = {"egtea-verbs": "--data", "motion-digits": "data_prep.motion_digits render"}[recipe]
    assert_says(ended, str(folder), remedy)
    assert_nothing_trained(tmp_path / "out")


def test_a_folder_without_egteas_clips(trainer: VideoTrainer, tmp_path: Path, verbs: Path) -> None:
    ended = trainer.run(tmp_path, "egtea-verbs", "--data", str(verbs))
    assert_says(ended, "10321 of the 10321 clips are not in", str(verbs), "--data")


def test_a_missing_clip(trainer: VideoTrainer, tmp_path: Path, own_set: Path) -> None:
    (own_set / "clips" / "test-050.mp4").unlink()
    ended = trainer.run(tmp_path / "out", *RUN, "--data", str(own_set))
    assert_says(ended, "1 of the 57 clips", "test-050 is missing")
    assert_nothing_trained(tmp_path / "out")


@pytest.mark.parametrize(
    ("file", "line", "words"),
    [
        ("val_split.txt", "difficulty-999 7 7 1", ("verb id 7 is out of range", "1 to 6")),
        ("train_split.txt", "train-999 1 0 1", ("verb id '0' is not a whole number",)),
        ("train_split.txt", "train-999 1", ("2 fields where 4 to 6 belong",)),
        ("test_split.txt", "train-000 1 1 1", ("clip train-000 stands in", "one part")),
        ("verb_idx.txt", "Fly 9", ("no verb with id 7",)),
        ("verb_idx.txt", "Fly 7", ("no clip of the verb Fly", "without a training clip")),
    ],
)
def test_a_list_with_a_wrong_line(
    trainer: VideoTrainer, tmp_path: Path, own_set: Path, file: str, line: str, words: tuple[str]
) -> None:
    with (own_set / "splits" / file).open("a") as split:
        split.write(line + "\n")
    ended = trainer.run(tmp_path / "out", *RUN, "--data", str(own_set))
    assert_says(ended, *words)
    assert_nothing_trained(tmp_path / "out")


@pytest.mark.parametrize(
    ("clip", "content", "workers"),
    [
        ("train-005", b"no video", "0"),
        ("train-005", b"no video", "2"),
        ("difficulty-030", b"", "0"),
        ("test-050", None, "2"),
    ],
)
def test_an_unreadable_clip_met_in_a_run(
    trainer: VideoTrainer,
    tmp_path: Path,
    own_set: Path,
    clip: str,
    content: bytes | None,
    workers: str,
) -> None:
    path = own_set / "clips" / f"{clip}.mp4"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if content is None else content)
    run = (*RUN, "--data", str(own_set), "--workers", workers)
    assert_says(trainer.run(tmp_path / "out", *run, *EVERY_EPOCH), str(path))
    folder = only_run(tmp_path / "out", GROUP)
    # A test clip is met after the last epoch, whose checkpoint stays.
    assert (folder / "checkpoint.pt").exists() is (clip == "test-050")
    path.write_bytes(whole)
    assert trainer.run(tmp_path / "out", *run).code == 0
    assert_same_run(folder, trainer.reference(*RUN))


def test_an_unreadable_clip_met_while_the_cache_is_filled(
    trainer: VideoTrainer, tmp_path: Path, own_set: Path
) -> None:
    path = own_set / "clips" / "test-050.mp4"
    path.write_bytes(b"no video")
    run = (*RUN, "--data", str(own_set), "--cache", str(tmp_path / "cache"))
    ended = trainer.run(tmp_path / "out", *run)
    assert (ended.code, "Traceback" in ended.err) == (2, False)
    assert ended.err.splitlines()[-1].startswith(f"error: Clip {path}")
    assert_nothing_trained(tmp_path / "out")


def test_the_cache_of_other_frames(trainer: VideoTrainer, tmp_path: Path) -> None:
    cache = ("--cache", str(tmp_path / "cache"))
    assert trainer.run(tmp_path / "out", *RUN, *cache).code == 0
    wider = options("cdb-w-ce", frame_width=24)
    assert_says(trainer.run(tmp_path / "out", *wider, *cache), str(tmp_path / "cache"), "another")


# The pretrained weights.


@pytest.fixture
def pretrained(verbs: Path) -> tuple[str, ...]:
    return options("ce", model="resnext101", start="kinetics")


def test_no_kinetics_file(
    trainer: VideoTrainer, tmp_path: Path, pretrained: tuple[str, ...]
) -> None:
    path = tmp_path / "resnext-101-kinetics.pth"
    ended = trainer.run(tmp_path / "out", *pretrained, "--kinetics", str(path))
    assert_says(ended, str(path), "--kinetics")
    assert_nothing_trained(tmp_path / "out")


@pytest.mark.parametrize("content", ["text", "other", "partial"])
def test_a_wrong_kinetics_file(
    trainer: VideoTrainer, tmp_path: Path, pretrained: tuple[str, ...], content: str
) -> None:
    path = tmp_path / "weights.pth"
    if content == "text":
        path.write_text("no weights")
    else:
        names = {"other": "classifier.weight", "partial": "module.conv1.weight"}
        weight = torch.zeros(64, 3, 7, 7, 7)
        torch.save({"state_dict": {names[content]: weight}}, path)
    ended = trainer.run(tmp_path / "out", *pretrained, "--kinetics", str(path))
    assert_says(ended, str(path))
    assert_nothing_trained(tmp_path / "out")


# Options.


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--workers", "-1"), "--workers must be at least 0, not -1"),
        (("--threads", "0"), "--threads must be at least 1, not 0"),
        (("--batch-size", "29"), "--batch-size 29 is more than the 28 training clips"),
        (("--crop", "17"), "--crop 17 is larger than a frame of 16 x 20"),
        (("--focal-gamma", "2"), "--focal-gamma 2.0 has no effect on --method cdb-w-ce"),
        (("--start", "kinetics"), "--start kinetics has no weights for --model small-resnext"),
        (("--learning-rate", "nan"), "--learning-rate must be above 0, not nan"),
        (("--milestones", "5", "3"), "--milestones must be epochs from 1 up in growing order"),
    ],
)
def test_a_wrong_option(
    trainer: VideoTrainer, tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    assert_says(trainer.run(tmp_path, *RUN, *words), said)
    assert_nothing_trained(tmp_path)


def test_an_unknown_recipe(trainer: VideoTrainer, tmp_path: Path) -> None:
    assert_says(trainer.run(tmp_path, "egtea"), "first argument names the recipe", "egtea-verbs")


# Checkpoint.


def test_a_damaged_checkpoint(trainer: VideoTrainer, begun: Path) -> None:
    path = begun / "checkpoint.pt"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)
    ended = trainer.run(begun.parents[1], *RUN)
    assert_says(ended, str(path), "truncated or damaged", "move it elsewhere")
    assert path.read_bytes() == content
    path.unlink()
    assert_continues(trainer, begun)


def test_a_checkpoint_of_another_configuration(trainer: VideoTrainer, begun: Path) -> None:
    other = begun.with_name(begun.name.replace("seed-0", "seed-1"))
    seeded = options("cdb-w-ce", seed=1)
    ended = trainer.run(begun.parents[1], *seeded, at=("step", 1), what="kill")
    assert ended.code == -signal.SIGKILL
    shutil.copy(begun / "checkpoint.pt", other)
    ended = trainer.run(begun.parents[1], *seeded)
    path = str(other / "checkpoint.pt")
    assert_says(ended, path, "seed 0 there, 1 asked for", "another folder with --out")


# A loss that is no number, a full disk.


def test_a_nan_loss_names_epoch_and_step_and_keeps_the_last_good_checkpoint(
    trainer: VideoTrainer, begun: Path
) -> None:
    before = (begun / "checkpoint.pt").read_bytes()
    # The third step after the checkpoint of the second epoch.
    ended = trainer.run(begun.parents[1], *RUN, *EVERY_EPOCH, at=("step", 3), what="nan")
    assert_says(ended, "The loss is nan at epoch 3, step 3", "--learning-rate (now 0.02)")
    assert (begun / "checkpoint.pt").read_bytes() == before
    assert_continues(trainer, begun)


@pytest.mark.parametrize("method", ["ce", "cdb-s", "cdb-w-ce"])
def test_a_learning_rate_that_diverges(trainer: VideoTrainer, tmp_path: Path, method: str) -> None:
    ended = trainer.run(tmp_path, *options(method, learning_rate=1e30))
    assert_says(ended, "epoch 1, step ", "lower --learning-rate (now 1e+30)")
    names = {path.name for path in only_run(tmp_path, GROUP).iterdir()}
    assert names == {"config.json", "failure.json", "lock", "tensorboard"}


@pytest.mark.parametrize(
    ("limit", "name"),
    # Bytes a file may have: too few for config.json (400 or so), TensorBoard's log, the checkpoint.
    [(380, "config.json"), (1000, "tensorboard"), (100_000, "checkpoint.pt")],
)
def test_no_room_for_a_file(trainer: VideoTrainer, tmp_path: Path, limit: int, name: str) -> None:
    often = () if name == "tensorboard" else EVERY_EPOCH
    ended = trainer.run(tmp_path, *RUN, *often, limit=limit)
    assert_says(ended, "No room left", name, "free some space", "it continues")
    run = only_run(tmp_path, GROUP)
    assert not [path for path in run.iterdir() if path.name.startswith(".")]
    assert_continues(trainer, run)


def test_no_room_for_the_next_checkpoint_keeps_the_last(trainer: VideoTrainer, begun: Path) -> None:
    path = begun / "checkpoint.pt"
    before = path.read_bytes()
    ended = trainer.run(begun.parents[1], *RUN, *EVERY_EPOCH, limit=len(before) // 2)
    assert_says(ended, "No room left", str(path))
    assert path.read_bytes() == before
    assert load_tensors(path)["state"]["training"]["epoch"] == 2
    assert_continues(trainer, begun)


@pytest.mark.parametrize(("call", "name"), [(1, "weights.pt"), (3, "record.json")])
def test_a_full_disk_at_the_end(trainer: VideoTrainer, begun: Path, call: int, name: str) -> None:
    ended = trainer.run(begun.parents[1], *RUN, at=("fsync", call), what="no room")
    assert_says(ended, "No room left", str(begun / name), "No space left on device")
    assert_continues(trainer, begun)


def test_no_room_for_the_cache(trainer: VideoTrainer, tmp_path: Path) -> None:
    run = (*RUN, "--cache", str(tmp_path / "cache"))
    ended = trainer.run(tmp_path / "out", *run, limit=3000)
    assert ended.code == 2
    assert ended.err.splitlines()[-1].startswith("error: No room left to write ")
    assert not list((tmp_path / "cache").glob(".*"))
    assert trainer.run(tmp_path / "out", *run).code == 0
    assert_same_run(only_run(tmp_path / "out", GROUP), trainer.reference(*RUN))
