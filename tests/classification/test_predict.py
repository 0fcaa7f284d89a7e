"""A finished run's predictions on files, as evaluation has them; its network for other programs."""

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from classification import predict
from classification.data import load_data, scale_pixels
from classification.evaluate import read_config, trained_model
from classification.models.named_network import make_named_network
from classification.predict import EXPORTED_TEXT, ImageClassifier, export_program, load_run
from classification.preprocessing import GreyDigit, Middle, SmallColour
from common.errors import UserError, run_main
from tests.classification import own_networks, small_cifar, small_images
from tests.classification.image_trees import picture
from tests.classification.trainer import Trainer
from tests.pages import module_calls, python_blocks, section

CPU = torch.device("cpu")
KINDS = ("mnist", "cifar", "crt", "lws", "images", "oltr")
EXPORTED = ("mnist", "cifar", "lws", "oltr")
"""The networks of the other kinds are parts of theirs."""
FEW = 20
"""Test images of each kind, at most."""


@pytest.fixture(scope="module", autouse=True)
def small_networks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for module, name, value in small_cifar.STAND_INS:
            patch.setattr(module, name, value)
        for module, name, value in small_images.STAND_INS:
            patch.setattr(f"{module}.{name}", value)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_images.write_images(tmp_path_factory.mktemp("images") / "set")


Run = Callable[[str], Path]


@pytest.fixture(scope="module")
def run_of(trainer: Trainer, folder: Path) -> Run:
    """The finished run of a kind."""
    stage1 = ("--stage1-epochs", "2")
    words = {
        # The pixels are written to files as they are.
        "mnist": ("--epochs", "2", "--imbalance", "5", "--input-scaling", "raw"),
        "cifar": small_cifar.small_run("cifar100-lt", "ldam-drw"),
        "crt": small_cifar.small_run("cifar100-lt-crt", "class-aware", *stage1),
        "lws": small_cifar.small_run("cifar100-lt-lws", "class-aware", *stage1),
        "images": small_images.small_run("ce", "--data", str(folder)),
        "oltr": small_images.small_run("oltr", "--data", str(folder)),
    }
    return lambda kind: trainer.reference(*words[kind])


def evaluated(kind: str, run: Path, folder: Path, out: Path) -> tuple[list[Path], Tensor, Tensor]:
    """Files of the first test images, evaluation's inputs of them, and its logits."""
    in_files = kind in ("images", "oltr")
    config = read_config(run)
    data = load_data(config, CPU, folder if in_files else None)
    if in_files:
        # A batch of an evaluation has so many.
        assert data.test.batch_size == 10  # type: ignore[union-attr]
        reader = data.test.reader  # type: ignore[union-attr]
        paths = [reader.files.path(n) for n in range(10)]
    images = next(iter(data.test.evaluation_batches()))[0][:FEW]
    if kind in ("cifar", "crt", "lws"):
        images = images.repeat(1, 1, 4, 4)  # Of the stand-in they have 8 x 8 pixels.
    if not in_files:
        paths = [out / f"{n:02d}.png" for n in range(len(images))]
        for path, image in zip(paths, images.to(torch.uint8), strict=True):
            pixels = image[0] if kind == "mnist" else image.permute(1, 2, 0)
            Image.fromarray(pixels.numpy()).save(path)
    network = trained_model(run, config, data.num_classes, "last")
    with torch.inference_mode():
        return paths, images, network(images)


def call(monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    monkeypatch.setattr(sys, "argv", ["predict", *map(str, words)])
    run_main(predict.main)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("kind", KINDS)
def test_probabilities_are_those_of_evaluation_to_the_bit(
    kind: str, run_of: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    paths, images, logits = evaluated(kind, run_of(kind), folder, tmp_path)
    model = load_run(run_of(kind))
    ours = torch.stack([model.preprocess(path) for path in paths])
    assert ours.dtype == torch.float32
    assert tuple(ours.shape[1:]) == model.preprocessing.shape
    assert torch.equal(ours, images.float())
    with torch.inference_mode():
        assert torch.equal(model(ours), logits)
    # And by the command, whose batch is as large.
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for n, path in enumerate(paths):
        shutil.copy(path, pictures / f"{n:02d}{path.suffix}")
    names, table = model.class_names, tmp_path / "table.csv"
    call(monkeypatch, run_of(kind), pictures, "--csv", table, "--top", len(names))
    lines = capsys.readouterr().out.splitlines()
    rows = rows_of(table)
    assert len(lines) == len(paths)
    assert len(rows) == len(paths) * len(names)
    for n, expected in enumerate(logits.softmax(dim=1)):
        mine = rows[n * len(names) : (n + 1) * len(names)]
        assert {row["path"] for row in mine} == {str(pictures / f"{n:02d}{paths[n].suffix}")}
        assert [row["rank"] for row in mine] == [str(k + 1) for k in range(len(names))]
        told = {row["class"]: np.float32(row["probability"]) for row in mine}
        assert [told[name] for name in names] == expected.tolist()
        best = names[int(expected.argmax())]
        assert lines[n].startswith(f"{mine[0]['path']}: {best} {expected.max().item():.4f}, ")
        assert mine[0]["class"] == best


def test_the_best_epoch_has_weights_of_its_own(run_of: Run) -> None:
    run = run_of("mnist")
    weights = torch.load(run / "weights.pt", weights_only=True)
    for epoch in ("last", "best"):
        model = load_run(str(run), epoch=epoch)  # type: ignore[arg-type]
        state = model.network.state_dict()
        assert all(torch.equal(state[name], value) for name, value in weights[epoch].items())
        assert not any(module.training for module in model.modules())


@pytest.mark.parametrize("scaling", ["raw", "unit", "standardise"])
def test_digits_are_scaled_as_the_training_images(scaling: Any, tmp_path: Path) -> None:
    pixels = torch.randint(256, (28, 28), dtype=torch.uint8)
    preprocess = GreyDigit(scaling)
    ours = preprocess(Image.fromarray(pixels.numpy()))
    assert torch.equal(ours[None], scale_pixels(pixels[None], scaling))
    said = preprocess.describe()
    (mean,), (std,) = said["mean"], said["std"]
    torch.testing.assert_close((pixels[None].float() - mean) / std, ours)


@pytest.mark.parametrize("preprocess", [GreyDigit("raw"), SmallColour(), Middle(40, 32, True)])
def test_pictures_of_any_size_and_mode_are_taken_and_stay_as_they_are(
    preprocess: Any, tmp_path: Path
) -> None:
    photograph = picture(90, 60)
    for mode in ("RGB", "L", "P", "RGBA", "CMYK", "1"):
        own = photograph.convert(mode)
        before = own.tobytes()
        result = preprocess(own)
        assert tuple(result.shape) == preprocess.shape
        assert result.isfinite().all()
        assert (own.mode, own.size, own.tobytes()) == (mode, (90, 60), before)
    photograph.save(tmp_path / "a.png")
    photograph.save(tmp_path / "a.jpg")
    with Image.open(tmp_path / "a.jpg") as file:
        torch.testing.assert_close(
            preprocess(file), preprocess(str(tmp_path / "a.jpg")), atol=8, rtol=0
        )
        assert file.size == (90, 60)
    assert torch.equal(preprocess(tmp_path / "a.png"), preprocess(photograph))


def test_grey_values_of_32_bits_are_refused() -> None:
    with pytest.raises(UserError, match="the picture has grey values of 32 bits"):
        SmallColour()(Image.new("F", (4, 4)))


def test_a_picture_on_its_side_is_made_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = picture(32, 32)
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "a.png", exif=exif)
    assert torch.equal(SmallColour()(tmp_path / "a.png"), SmallColour()(upright))
    # Enlarged before it is turned, not after: the last digits differ.
    turned, as_it_lies, whole = (
        Middle(40, 32, turn)(source)
        for turn, source in (
            (True, tmp_path / "a.png"),
            (False, tmp_path / "a.png"),
            (True, upright),
        )
    )
    torch.testing.assert_close(turned, whole, atol=0.05, rtol=0)
    assert (as_it_lies - whole).abs().mean() > 0.5


def test_a_star_that_has_become_several_runs_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, files in (("ce_a", ["config.json"]), ("ce_b", ["config.json", "record.json"])):
        (tmp_path / name).mkdir()
        for file in files:
            (tmp_path / name / file).touch()
    with pytest.raises(SystemExit) as ended:
        call(monkeypatch, *sorted(tmp_path.glob("ce*")), "pictures")
    assert ended.value.code == 2
    said = f"2 runs are named, of which 1 has finished: {tmp_path / 'ce_b'}; name one."
    assert said in capsys.readouterr().err


# ---- export

ELSEWHERE = """
import importlib.util, json, pathlib, sys, torch
assert importlib.util.find_spec("classification") is None
for path in sorted(pathlib.Path().glob("*.pt2")):
    said = {sys.argv[1]: ""}
    program = torch.export.load(path, extra_files=said).module()
    images, logits = torch.load(path.with_suffix(".pt"))
    for size in (len(images), 1):
        ours = program(images[:size])
        torch.testing.assert_close(ours, logits[:size], rtol=1e-5, atol=1e-6)
    # Attention is computed in another order.
    assert torch.equal(program(images), logits) or "vit" in path.stem, path
    print(path.stem, json.dumps(json.loads(said[sys.argv[1]])))
assert "torchvision" not in sys.modules
"""


def loaded_elsewhere(folder: Path) -> dict[str, Any]:
    """What is said of each program in ``folder``, whose logits are those beside it."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["OMP_NUM_THREADS"] = "1"
    command = [sys.executable, "-c", ELSEWHERE, EXPORTED_TEXT]
    ended = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    assert ended.returncode == 0, ended.stderr
    lines = (line.split(" ", 1) for line in ended.stdout.splitlines())
    return {name: json.loads(said) for name, said in lines}


def test_exported_programs_give_the_same_logits_without_this_repository(
    run_of: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in EXPORTED:
        own = tmp_path / f"{kind} files"
        own.mkdir()
        _, images, logits = evaluated(kind, run_of(kind), folder, own)
        torch.save((images.float(), logits), tmp_path / f"{kind}.pt")
        call(monkeypatch, run_of(kind), "--export", tmp_path / f"{kind}.pt2")
    found = loaded_elsewhere(tmp_path)
    assert set(found) == set(EXPORTED)
    for kind, said in found.items():
        model = load_run(run_of(kind))
        assert (said["run"], said["epoch"], said["precision"]) == (
            run_of(kind).name, "last", "float32",
        )  # fmt: skip
        assert tuple(said["class_names"]) == model.class_names
        assert said["input"]["shape"] == ["batch", *model.preprocessing.shape]
        assert len(said["input"]["mean"]) == len(said["input"]["std"]) == said["input"]["shape"][1]


def test_networks_by_a_name_are_exported_from_either_precision(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(3, 3, 32, 32, generator=generator)
    names = [*own_networks.LIKE, f"{own_networks.__name__}:distilled"]
    for place, name in enumerate(names):
        mixed = place % 2 == 0
        network = make_named_network(5, generator, name, crop=32, mixed=mixed)
        network = network.to(memory_format=torch.channels_last)
        model = ImageClassifier(network, tuple("abcde"), Middle(40, 32, turn=True))
        file = tmp_path / name.rpartition(":")[2]
        export_program(model, file.with_suffix(".pt2"))
        assert network.mixed is mixed
        network.mixed = False
        with torch.inference_mode():
            logits = model(images)
        assert (logits.amax(0) - logits.amin(0) > 0.01).all()
        torch.save((images, logits), file.with_suffix(".pt"))
    assert len(loaded_elsewhere(tmp_path)) == len(names)


def test_a_network_of_bfloat16_is_exported_in_float32_and_stays_as_it_is(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    make = small_cifar.make_resnet
    mixed: nn.Module = make(12, generator, blocks=1, mixed=True)
    model = ImageClassifier(mixed, tuple("abcdefghijkl"), SmallColour())
    export_program(model, tmp_path / "program.pt2")
    plain = make(12, generator, blocks=1, mixed=False)
    plain.load_state_dict(mixed.state_dict())
    images = torch.randint(256, (3, 3, 32, 32), generator=generator).float()
    program = torch.export.load(tmp_path / "program.pt2").module()
    with torch.inference_mode():
        expected = plain.eval()(images)
        assert torch.equal(program(images), expected)
        assert not torch.equal(model(images), expected)
    assert mixed.mixed is True


# ---- what a user does wrong


def test_unreadable_pictures_are_named_and_passed_over(
    run_of: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = tmp_path / "pictures"
    for name in ("b/2.png", "a.png", ".hidden/3.png", "._a.png", "c.png"):
        (pictures / name).parent.mkdir(parents=True, exist_ok=True)
        picture(28, 28).save(pictures / name)
    (pictures / "note.txt").write_text("no picture")
    (pictures / "b/1.png").write_bytes(b"no picture")
    table = tmp_path / "table.csv"
    with pytest.raises(SystemExit, match="3"):
        call(monkeypatch, run_of("mnist"), pictures, "--csv", table, "--batch-size", 2)
    out, err = capsys.readouterr()
    assert [line.split(":")[0] for line in out.splitlines()] == [
        str(pictures / name) for name in ("a.png", "b/2.png", "c.png")
    ]
    first, last = err.splitlines()
    assert first.startswith(f"passed over: {pictures / 'b/1.png'} cannot be read as an image")
    assert last == "1 of 4 files were passed over"
    # MNIST-LT has two classes: fewer than the usual five.
    assert [row["rank"] for row in rows_of(table)] == ["1", "2"] * 3


def test_names_that_are_no_text_are_printed_and_kept_as_bytes(
    run_of: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = b"a\xff.png"
    try:
        with open(os.fsencode(tmp_path) + b"/" + name, "wb") as file:
            picture(28, 28).save(file, format="png")
    except OSError:
        pytest.skip("the file system takes text alone")
    call(monkeypatch, run_of("mnist"), tmp_path, "--csv", tmp_path / "table.csv")
    assert "a\N{REPLACEMENT CHARACTER}.png: " in capsys.readouterr().out
    assert name in (tmp_path / "table.csv").read_bytes()


Change = Callable[[Path], None]


def damage(run: Path) -> None:
    content = bytearray((run / "weights.pt").read_bytes())
    content[len(content) // 2] ^= 1
    (run / "weights.pt").write_bytes(content)


def of_another_task(run: Path) -> None:
    record = json.loads((run / "record.json").read_text())
    (run / "record.json").write_text(json.dumps(record | {"task": "video"}))


def of_another_network(run: Path) -> None:
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(config | {"architecture": "lenet-ren"}))


def without(name: str) -> Change:
    return lambda run: (run / name).unlink()


WRONG: tuple[tuple[str, Change, tuple[str, ...], str], ...] = (
    ("unfinished", without("record.json"), ("{a}",), "the run has not finished"),
    ("no weights", without("weights.pt"), ("{a}",), "the run has not finished"),
    ("no run", without("config.json"), ("{a}",), "is not the folder of a run"),
    ("another task", of_another_task, ("{a}",), "is a run of video, not of classification; use"),
    ("damaged", damage, ("{a}",), "weights.pt is truncated or damaged"),
    ("another network", of_another_network, ("{a}",), "holds the weights of another network"),
    ("no record", lambda run: damage_text(run / "record.json"), ("{a}",), "record.json cannot be"),
    ("top 0", lambda run: None, ("{a}", "--top", "0"), "--top 0 must be at least 1"),
    ("top 3", lambda run: None, ("{a}", "--top", "3"), "at most 2, the number of classes"),
    ("no batch", lambda run: None, ("{a}", "--batch-size", "0"), "--batch-size must be at least 1"),
    ("nothing", lambda run: None, (), "name a picture or a folder, or --export FILE"),
    ("empty", lambda run: None, ("{empty}",), "holds no images"),
    ("absent", lambda run: None, ("{empty}/x",), "is not there; name a file or a folder of images"),
    ("unreadable", lambda run: None, ("{text}",), "not one of the files can be read (1)"),
    ("csv", lambda run: None, ("{a}", "--csv", "{empty}/x/y.csv"), "there is no folder"),
    ("csv folder", lambda run: None, ("{a}", "--csv", "{empty}"), "{empty} is a folder; name"),
    ("sheet", lambda run: None, ("{a}", "--sheet", "s.xyz"), "name must end with .png; add that"),
    ("program", lambda run: None, ("--export", "t.pt"), "name must end with .pt2; add that"),
    ("csv alone", lambda run: None, ("--csv", "t.csv", "--export", "t.pt2"), "--csv t.csv has no"),
    ("export", lambda run: None, ("--export", "{empty}/x/y.pt2"), "--export {empty}/x/y.pt2: "),
)  # fmt: skip


def damage_text(path: Path) -> None:
    path.write_text(path.read_text()[:-10])


@pytest.mark.parametrize(
    ("change", "words", "said"), [w[1:] for w in WRONG], ids=[w[0] for w in WRONG]
)
def test_what_cannot_be_done_is_said_in_one_sentence(
    change: Change, words: tuple[str, ...], said: str, run_of: Run, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    run, empty, text = tmp_path / "run", tmp_path / "empty", tmp_path / "text.png"
    shutil.copytree(run_of("mnist"), run)
    change(run)
    empty.mkdir()
    picture(28, 28).save(tmp_path / "a.png")
    text.write_text("no picture")
    places = {"a": tmp_path / "a.png", "empty": empty, "text": text}
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SystemExit, match="2"):
        call(monkeypatch, run, *(word.format(**places) for word in words))
    out, err = capsys.readouterr()
    *passed, last = err.splitlines()
    assert all(line.startswith("passed over: ") for line in passed)
    assert last.startswith("error: ")
    assert last.endswith(".")
    assert said.format(**places) in last
    assert out == ""
    assert sorted(tmp_path.rglob("*")) == before


def test_help_says_what_the_exit_codes_mean(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="0"):
        call(monkeypatch, "--help")
    assert "Exit code: 0 where every file was read; 2 where nothing is" in " ".join(
        capsys.readouterr().out.split()
    )


def test_a_run_whose_images_are_not_turned_is_told(run_of: Run) -> None:
    config: Any = read_config(run_of("images"))
    assert config.make_preprocessing() == Middle(40, 32, turn=True)
    imagenet = replace(config, recipe="imagenet-lt", dataset="imagenet-lt", lists=None)
    assert imagenet.make_preprocessing() == Middle(40, 32, turn=False)


def test_what_the_page_says_is_done_as_it_says(
    run_of: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = section("classification/README.md", "Predictions")
    calls, blocks = module_calls(page, "classification.predict"), python_blocks(page)
    assert (len(calls), len(blocks)) == (2, 2)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(run_of("mnist"), calls[0][0])
    Path("my-digits").mkdir()
    for digit in (4, 9):
        picture(28, 28, seed=digit).save(f"my-digits/{digit}.png")
    for words in calls:
        call(monkeypatch, *words)
    assert len(rows_of(Path("digits.csv"))) == 4
    assert len(capsys.readouterr().out.splitlines()) == 2
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    assert names["probabilities"].shape == (2, 2)
    assert names["logits"].shape == (1, 2)
