import json
import math
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from common.errors import UserError, run_main
from data_prep import motion_digits
from data_prep.clip_file import probe_clip
from data_prep.clips import find_clips, read_splits
from data_prep.mnist import Digits, load_digits
from data_prep.motion_digits import (
    RATES,
    Clip,
    Look,
    Settings,
    class_counts,
    clips_folder,
    digit_order,
    draw_look,
    encode,
    load_motion_digits,
    paint,
    place_digit,
    plan_clips,
    render_frames,
    render_set,
)
from data_prep.motions import HEIGHT, LONGEST, SHORTEST, VERBS, WIDTH, State

av = pytest.importorskip("av")

# 2 training, 4 difficulty and 6 test clips of each verb.
TINY = Settings(seed=3, train_divisor=1e6, difficulty_divisor=1e6, test_divisor=1e6)
EGTEA_NAME = re.compile(r"[A-Z]+\d\d-R\d\d-[A-Za-z]+-\d+-\d+-F\d{6}-F\d{6}")
LABELS = {name: label for label, name in enumerate(VERBS)}


@pytest.fixture(scope="module")
def digits() -> Digits:
    return load_digits()


@pytest.fixture(scope="module")
def plan(digits: Digits) -> dict[str, list[Clip]]:
    return plan_clips(Settings(), digits)


@pytest.fixture(scope="module")
def tiny_plan(digits: Digits) -> dict[str, list[Clip]]:
    return plan_clips(TINY, digits)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A rendered set; no test changes it."""
    folder = tmp_path_factory.mktemp("rendered") / "set"
    render_set(folder, TINY, workers=2)
    return folder


@pytest.fixture
def one_verb(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sets of 12 clips, for tests that render."""
    counts = {"train": (2,), "difficulty": (4,), "test": (6,)}
    monkeypatch.setattr(motion_digits, "class_counts", lambda settings: counts)
    monkeypatch.setattr(motion_digits, "VERBS", {"Slide right": VERBS["Slide right"]})


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(files)}


# The class profile.


def test_the_profile_is_egteas_divided_and_rounded_up() -> None:
    assert class_counts(Settings()) == {
        "train": (43, 78, 143, 83, 13, 134, 13, 31, 23, 25, 6, 6, 14, 5, 8, 12, 3, 2, 3),
        "difficulty": (35, 51, 90, 5, 15, 80, 12, 19, 23, 22, 8, 8, 4, 4, 6, 5, 4, 4, 4),
        "test": (30, 51, 91, 42, 11, 84, 10, 20, 17, 17, 6, 6, 8, 6, 6, 7, 6, 6, 6),
    }


def test_with_every_divisor_1_the_profile_is_egteas_and_no_digit_is_trained_on_and_measured_on(
    digits: Digits,
) -> None:
    whole = plan_clips(Settings(train_divisor=1, difficulty_divisor=1, test_divisor=1), digits)
    assert [len(clips) for clips in whole.values()] == [6372, 1927, 2022]
    trained, measured = ({clip.digit for clip in whole[part]} for part in ("train", "difficulty"))
    assert (len(trained), len(measured)) == (6372, 1927)
    assert not trained & measured
    names = [clip.name for clips in whole.values() for clip in clips]
    assert len(set(names)) == len(names)


def test_staying_still_is_head_and_of_two_opposite_verbs_one_is_rare() -> None:
    counts = class_counts(Settings())["train"]
    head = np.argsort(counts)[-5:]
    assert LABELS["Stay still"] in head
    for frequent, rare in [
        ("Circle clockwise", "Circle anticlockwise"),
        ("Spin anticlockwise", "Spin clockwise"),
        ("Grow", "Shrink"),
        ("Slide right", "Slide left"),
    ]:
        assert counts[LABELS[frequent]] >= 7 * counts[LABELS[rare]]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"seed": -1}, "--seed -1 is negative"),
        ({"train_divisor": 0.5}, "--train-divisor 0.5 is too small"),
        ({"difficulty_divisor": math.nan}, "--difficulty-divisor nan"),
        ({"test_divisor": math.inf}, "--test-divisor inf"),
    ],
)
def test_impossible_settings_are_refused_by_the_options_name(
    options: dict[str, float], sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        Settings(**options)  # type: ignore[arg-type]


# The plan of the clips.


def test_lengths_rates_and_both_digits_are_as_many_as_promised(plan: dict[str, list[Clip]]) -> None:
    clips = [clip for part in plan.values() for clip in part]
    assert {clip.frames for clip in clips} == set(range(SHORTEST, LONGEST + 1))
    assert {clip.rate for clip in clips} == set(RATES)
    assert 0.45 < np.mean([clip.noun for clip in clips]) - 1 < 0.55


def test_clip_names_have_egteas_shape_and_tell_the_duration(plan: dict[str, list[Clip]]) -> None:
    for clip in plan["train"]:
        assert EGTEA_NAME.fullmatch(clip.name)
        start, end, first, last = clip.name.split("-")[3:]
        assert int(end) - int(start) == int(1000 * clip.frames / clip.rate)
        assert int(last[1:]) - int(first[1:]) == clip.frames
        assert clip.file.parent.name == "-".join(clip.name.split("-")[:3])


def test_clips_of_one_recording_do_not_overlap_in_time(plan: dict[str, list[Clip]]) -> None:
    spans: dict[str, list[tuple[int, int]]] = {}
    for clip in plan["train"]:
        start, end = map(int, clip.name.split("-")[3:5])
        spans.setdefault(clip.file.parent.name, []).append((start, end))
    assert len(spans) == 7
    for of_recording in spans.values():
        assert all(a[1] <= b[0] for a, b in pairwise(of_recording))


def test_test_digits_come_from_mnists_test_part(
    digits: Digits, tiny_plan: dict[str, list[Clip]]
) -> None:
    clip = tiny_plan["test"][LABELS["Stay still"] * 6]
    seen = render_frames(clip, 3, digits)
    blank = replace(digits, train_images=torch.zeros_like(digits.train_images))
    assert torch.equal(render_frames(clip, 3, blank), seen)
    other = replace(digits, test_images=torch.zeros_like(digits.test_images))
    assert not torch.equal(render_frames(clip, 3, other), seen)


def test_the_noun_tells_four_and_nine(digits: Digits, plan: dict[str, list[Clip]]) -> None:
    for part, labels in (("train", digits.train_labels), ("test", digits.test_labels)):
        for clip in plan[part]:
            assert clip.noun == (1 if labels[clip.digit] == 0 else 2)


def test_a_digit_order_is_a_permutation_of_the_seed(digits: Digits) -> None:
    order = digit_order(0, digits, "train")
    assert order.sort().values.tolist() == list(range(11791))
    assert torch.equal(order.flip(0), digit_order(0, digits, "difficulty"))
    assert not torch.equal(order, digit_order(1, digits, "train"))


# The pictures.


def state(x: float = 0.5, y: float = 0.5, angle: float = 0.0, size: float = 0.0) -> State:
    return State(*(torch.tensor([[value]]) for value in (x, y, angle, size)))


def reference_cover(image: np.ndarray, x: float, y: float, angle: float, pixels: float) -> Tensor:
    """One pixel at a time: where in the image is it, and what lies around there."""
    padded = np.pad(image / 255.0, 40)
    scale = pixels / 20
    cover = np.zeros((HEIGHT, WIDTH))
    for row in range(HEIGHT):
        for column in range(WIDTH):
            dx = (column + 0.5 - x * WIDTH + WIDTH / 2) % WIDTH - WIDTH / 2
            dy = (row + 0.5 - y * HEIGHT + HEIGHT / 2) % HEIGHT - HEIGHT / 2
            turn = complex(dx, dy) * np.exp(-2j * math.pi * angle) / scale
            u, v = turn.real + 14 - 0.5 + 40, turn.imag + 14 - 0.5 + 40
            left, top = math.floor(u), math.floor(v)
            if 0 <= left < 107 and 0 <= top < 107:
                a, b = u - left, v - top
                upper = (1 - a) * padded[top, left] + a * padded[top, left + 1]
                lower = (1 - a) * padded[top + 1, left] + a * padded[top + 1, left + 1]
                cover[row, column] = (1 - b) * upper + b * lower
    return torch.from_numpy(cover).float()


@pytest.mark.parametrize(
    ("x", "y", "angle", "size"), [(0.5, 0.5, 0, 0), (0.03, 0.96, 0.3, 0.5), (0.9, 0.1, 0.85, 1.0)]
)
def test_the_digit_is_placed_as_by_a_literal_bilinear_map(
    digits: Digits, x: float, y: float, angle: float, size: float
) -> None:
    image = digits.train_images[5]
    cover = place_digit(image, state(x, y, angle, size))[0]
    wanted = reference_cover(image.numpy(), x, y, angle, 15 * 2**size)
    assert torch.allclose(cover, wanted, atol=1e-4)
    assert cover.max() > 0.5


def test_a_quarter_turn_clockwise_brings_the_top_to_the_right() -> None:
    image = torch.zeros(28, 28, dtype=torch.uint8)
    image[4:8, 12:16] = 255
    # The ink is 8 of 28 pixels above the centre; at the smallest size that is 6 pixels.
    assert ink_centre(place_digit(image, state())[0]) == pytest.approx((26, 40), abs=0.05)
    turned = place_digit(image, state(angle=0.25))[0]
    assert ink_centre(turned) == pytest.approx((32, 46), abs=0.05)


def ink_centre(cover: Tensor) -> tuple[float, float]:
    """y, x in pixels from the upper left corner of the picture."""
    places = torch.nonzero(torch.ones_like(cover)) + 0.5
    y, x = (places * cover.view(-1, 1)).sum(0) / cover.sum()
    return y.item(), x.item()


def test_what_sticks_out_on_the_right_is_seen_on_the_left(digits: Digits) -> None:
    middle = place_digit(digits.train_images[0], state(x=0.5, size=1.0))[0]
    edge = place_digit(digits.train_images[0], state(x=0.0, size=1.0))[0]
    assert torch.allclose(edge, middle.roll(40, dims=1), atol=1e-4)
    assert edge[:, 0:20].sum() > 10
    assert edge[:, 60:80].sum() > 10


@settings(max_examples=25, deadline=None)
@given(*(st.floats(0, 1, exclude_max=True) for _ in range(4)))
def test_the_amount_of_ink_depends_on_the_size_only(
    x: float, y: float, angle: float, size: float
) -> None:
    image = torch.zeros(28, 28, dtype=torch.uint8)
    image[6:22, 6:22] = 255
    cover = place_digit(image, state(x, y, angle, size))[0]
    pixels = 15 * 2**size / 20 * 16
    assert cover.sum().item() == pytest.approx(pixels**2, rel=0.05)


def test_the_ink_is_brighter_than_any_background(digits: Digits) -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        numbers = torch.rand(motion_digits._NUM_LOOK, generator=generator)
        look = draw_look(numbers, torch.arange(30) / 30)
        assert look.background.shape == (3, HEIGHT, WIDTH)
        assert look.ink.min() - look.background.max() >= 80
        assert look.background.min() >= 10
        assert 0.7 < look.light.min() <= look.light.max() <= 1


def test_paint_mixes_ink_and_background_by_hand() -> None:
    image = torch.full((28, 28), 255, dtype=torch.uint8)
    look = Look(
        torch.full((3, HEIGHT, WIDTH), 40.0), torch.tensor([200.0, 180.0, 220.0]), torch.ones(1)
    )
    picture = paint(image, state(), replace(look, light=torch.tensor([0.5])))
    assert picture.shape == (1, HEIGHT, WIDTH, 3)
    assert picture[0, 32, 40].tolist() == [100, 90, 110]
    assert picture[0, 0, 0].tolist() == [20, 20, 20]


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb.startswith(("Sl", "Sp", "Gr"))])
def test_the_first_frame_of_a_clip_is_that_of_a_clip_that_stays_still(
    digits: Digits, tiny_plan: dict[str, list[Clip]], verb: str
) -> None:
    clip = tiny_plan["train"][7]
    moving = render_frames(replace(clip, label=LABELS[verb]), 3, digits)
    still = render_frames(replace(clip, label=LABELS["Stay still"]), 3, digits)
    assert torch.equal(moving[0], still[0])
    assert not torch.equal(moving[-1], still[-1])


def test_another_seed_part_or_number_gives_other_pictures(
    digits: Digits, tiny_plan: dict[str, list[Clip]]
) -> None:
    clip = replace(tiny_plan["train"][0], frames=24)
    seen = render_frames(clip, 3, digits)
    assert torch.equal(render_frames(clip, 3, digits), seen)
    assert not torch.equal(render_frames(clip, 4, digits), seen)
    assert not torch.equal(render_frames(replace(clip, number=1), 3, digits), seen)
    assert not torch.equal(render_frames(replace(clip, part="difficulty"), 3, digits), seen)


def test_global_generators_are_left_alone(digits: Digits, tiny_plan: dict[str, list[Clip]]) -> None:
    before = torch.get_rng_state()
    render_frames(tiny_plan["train"][0], 3, digits)
    assert torch.equal(torch.get_rng_state(), before)


# The files.


def decoded(path: Path) -> Tensor:
    with av.open(str(path)) as container:
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return torch.from_numpy(np.stack(pictures))


def test_the_splits_are_read_and_every_clip_is_there(folder: Path) -> None:
    split = load_motion_digits(folder)
    assert split.class_names == tuple(VERBS)
    assert split.train_counts == (2,) * 19
    assert split.difficulty_counts == (4,) * 19
    assert split.test_counts == (6,) * 19
    found = find_clips(clips_folder(folder), split.clips)
    assert all(path.parent.name == "-".join(name.split("-")[:3]) for name, path in found.items())
    assert len(list(clips_folder(folder).rglob("*.mp4"))) == len(found) == 228


def test_split_lines_name_the_clip_the_action_the_verb_and_the_noun(
    folder: Path, tiny_plan: dict[str, list[Clip]]
) -> None:
    first = tiny_plan["train"][2]  # The first of the second verb.
    lines = (folder / "splits" / "train_split.txt").read_text().splitlines()
    assert lines[2] == f"{first.name} {2 + first.noun} 2 {first.noun}"
    assert (folder / "splits" / "verb_idx.txt").read_text().startswith("Slide right 1\nCircle")


def test_the_files_are_h264_and_show_the_rendered_pictures(
    folder: Path, digits: Digits, tiny_plan: dict[str, list[Clip]]
) -> None:
    for clip in tiny_plan["test"][::19]:
        path = clips_folder(folder) / clip.file
        info = probe_clip(path)
        assert (info.frames, info.width, info.height) == (clip.frames, 80, 64)
        assert info.rate == pytest.approx(float(clip.rate), rel=1e-3)
        with av.open(str(path)) as container:
            assert container.streams.video[0].codec_context.name == "h264"
        # Rendered alone, it is what the whole set holds, but for the compression.
        wanted = render_frames(clip, TINY.seed, digits).float()
        assert (decoded(path).float() - wanted).abs().mean() < 5


def test_the_same_frames_give_the_same_bytes(
    digits: Digits, tiny_plan: dict[str, list[Clip]]
) -> None:
    frames = render_frames(tiny_plan["train"][0], 3, digits)
    assert len({encode(frames, RATES[2]) for _ in range(8)}) == 1


# Rendering again.


@pytest.mark.usefixtures("one_verb")
def test_rendering_again_mends_what_is_missing_or_damaged_and_touches_nothing_else(
    tmp_path: Path,
) -> None:
    render_set(tmp_path, TINY, workers=1)
    whole = contents(tmp_path)
    clips = sorted(tmp_path.rglob("*.mp4"))
    untouched = {path: path.stat().st_mtime_ns for path in clips[2:]}
    clips[0].unlink()
    clips[1].write_bytes(clips[1].read_bytes()[:500])
    (clips[0].parent / ".killed.mp4.1.partial").write_bytes(b"half")
    render_set(tmp_path, TINY, workers=2)
    assert contents(tmp_path) == whole
    assert {path: path.stat().st_mtime_ns for path in clips[2:]} == untouched


@pytest.mark.usefixtures("one_verb")
def test_an_interrupted_rendering_goes_on_to_the_same_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    render_set(tmp_path / "whole", TINY, workers=1)
    calls: list[object] = []

    def interrupted(frames: Tensor, rate: object) -> bytes:
        calls.append(rate)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return encode(frames, RATES[0])

    with monkeypatch.context() as patch:
        patch.setattr(motion_digits, "encode", interrupted)
        with pytest.raises(KeyboardInterrupt):
            render_set(tmp_path / "stopped", TINY, workers=1)
    assert len(calls) < 12
    assert not (tmp_path / "stopped" / "splits").exists()
    assert not list(tmp_path.rglob("*.partial"))
    with pytest.raises(
        UserError, match=r"not rendered to its end; .*--seed 3 --train-divisor 1e\+"
    ):
        load_motion_digits(tmp_path / "stopped")
    for path in (tmp_path / "stopped").rglob("*.mp4"):
        path.unlink()  # They were given another rate here.
    render_set(tmp_path / "stopped", TINY, workers=1)
    assert contents(tmp_path / "stopped") == contents(tmp_path / "whole")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"seed": 4}, r"other settings \(seed 3, not 4\)"),
        (
            {"test_divisor": 5.0},
            r"other settings \(test_divisor 1e\+06, not 5\); give the same options",
        ),
    ],
)
def test_a_folder_of_other_settings_is_refused_by_name(
    folder: Path, change: dict[str, float], sentence: str
) -> None:
    before = contents(folder)
    with pytest.raises(UserError, match=f"{folder} holds motion digits of {sentence}"):
        render_set(folder, replace(TINY, **change), workers=1)  # type: ignore[arg-type]
    assert contents(folder) == before


def test_a_folder_of_an_older_renderer_or_with_damaged_settings_is_refused(tmp_path: Path) -> None:
    path = tmp_path / motion_digits.SETTINGS_FILE
    path.write_text(json.dumps({"version": 0, "seed": 3}))
    with pytest.raises(UserError, match=r"holds motion digits of other settings"):
        render_set(tmp_path, TINY, workers=1)
    path.write_bytes(b"\xff{")
    with pytest.raises(UserError, match=r"motion_digits\.json is damaged"):
        render_set(tmp_path, TINY, workers=1)


def test_clips_of_another_origin_are_not_mixed_with(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    with pytest.raises(UserError, match=r"clips was not made by this command; give an empty"):
        render_set(tmp_path, TINY, workers=1)
    assert not (tmp_path / motion_digits.SETTINGS_FILE).exists()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/set.*Not a directory"):
        render_set(tmp_path / "file" / "set", TINY, workers=1)


# The command line.


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def call(*arguments: str) -> None:
        monkeypatch.setattr(sys, "argv", ["data_prep.motion_digits", *arguments])
        run_main(motion_digits.main)

    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)
    return call


@pytest.mark.usefixtures("one_verb")
def test_render_writes_the_set_of_its_options_and_prints_the_counts(
    call: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call("render", "--folder", str(tmp_path / "set"), "--seed", "9", "--workers", "1")
    assert "Slide right" in capsys.readouterr().out
    stored = json.loads((tmp_path / "set" / motion_digits.SETTINGS_FILE).read_text())
    assert (stored["seed"], stored["train_divisor"]) == (9, 10)
    assert read_splits(tmp_path / "set" / "splits").test_counts == (6,)


def test_show_prints_clips_per_verb_and_the_head(
    call: Callable[..., None], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call("show", "--folder", str(folder))
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["Slide", "right", "2", "4", "6", "head"]
    assert lines[20].split() == ["all", "38", "76", "114"]
    assert lines[-1] == f"digest {load_motion_digits(folder).digest}"


def test_check_says_that_all_clips_are_there(
    call: Callable[..., None], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call("check", "--folder", str(folder))
    assert "all 228 clips are there" in capsys.readouterr().out


@pytest.mark.usefixtures("one_verb")
def test_check_names_the_damaged_clip_and_the_command_that_mends_it(
    call: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    render_set(tmp_path, TINY, workers=1)
    damaged = sorted(tmp_path.rglob("*.mp4"))[3]
    damaged.write_bytes(b"")
    with pytest.raises(SystemExit, match="2"):
        call("check", "--folder", str(tmp_path))
    said = capsys.readouterr()
    assert damaged.stem in said.out
    command = (
        f"python -m data_prep.motion_digits render --folder {tmp_path} --seed 3 "
        "--train-divisor 1e+06 --difficulty-divisor 1e+06 --test-divisor 1e+06"
    )
    assert command in said.err
    call(*command.split()[3:])
    call("check", "--folder", str(tmp_path))


@pytest.mark.parametrize("command", ["check", "show"])
def test_without_a_set_the_command_that_renders_it_is_named(
    command: str,
    call: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(motion_digits.FOLDER_VARIABLE, str(tmp_path / "my videos"))
    with pytest.raises(SystemExit, match="2"):
        call(command)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == (
        f"error: {tmp_path / 'my videos'} holds no motion digits; render what is missing with: "
        f"python -m data_prep.motion_digits render --folder '{tmp_path / 'my videos'}'.\n"
    )


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["render", "--seed", "-1"], "--seed -1 is negative"),
        (["render", "--workers", "0"], "--workers 0 is too few"),
        (["render", "--test-diviser", "2"], "--test-divisor"),
    ],
)
def test_a_mistake_on_the_command_line_exits_with_2_and_writes_nothing(
    arguments: list[str],
    word: str,
    call: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(motion_digits.FOLDER_VARIABLE, str(tmp_path / "set"))
    with pytest.raises(SystemExit, match="2"):
        call(*arguments)
    assert word in capsys.readouterr().err
    assert not (tmp_path / "set").exists()


def test_without_pyav_rendering_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(motion_digits.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs the package av; install .* extra 'video'"):
        render_set(tmp_path / "set", TINY, workers=1)
    assert not (tmp_path / "set").exists()
