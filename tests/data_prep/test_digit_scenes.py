import json
import math
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from common.errors import UserError, run_main
from data_prep import digit_scenes
from data_prep.digit_plan import (
    CATEGORIES,
    PARTS,
    Instance,
    Scene,
    Settings,
    category_images,
    frequency_letter,
    place_categories,
    plan_scenes,
    uniform_numbers,
)
from data_prep.digit_scenes import (
    GROUND,
    HEIGHT,
    MIN_VISIBLE,
    SETTINGS_FILE,
    WIDTH,
    Place,
    annotate,
    choose_places,
    draw_ground,
    encode,
    load_digit_scenes,
    paint,
    render_scene,
    render_set,
)
from data_prep.digit_styles import NUM_DRAWS, STYLES, Drawing, draw_digit, draw_stroke
from data_prep.mnist import Digits, load_digits

coco_masks = pytest.importorskip("pycocotools.mask")

# One image of each category: 10 images a part.
TINY = Settings(seed=3, divisor=1e6)


@pytest.fixture(scope="module")
def digits() -> Digits:
    return load_digits()


@pytest.fixture(scope="module")
def plan(digits: Digits) -> dict[str, list[Scene]]:
    return plan_scenes(Settings(), digits)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A rendered set; no test changes it."""
    folder = tmp_path_factory.mktemp("rendered") / "set"
    render_set(folder, TINY, workers=2)
    return folder


@pytest.fixture(scope="module")
def files(folder: Path) -> dict[str, dict[str, Any]]:
    return {part: json.loads((folder / f"{part}.json").read_text()) for part in PARTS}


def contents(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(found)}


def numbers_of(name: str, count: int = NUM_DRAWS) -> np.ndarray[Any, np.dtype[np.float64]]:
    return uniform_numbers(0, name, count)


def shown_pairs(scenes: list[Scene]) -> Counter[int]:
    """Images that show each category."""
    return Counter(c for scene in scenes for c in {i.category for i in scene.instances})


# The plan.


def test_there_are_13_rare_14_common_and_13_frequent_categories_with_a_long_tail() -> None:
    train = category_images(Settings())["train"]
    assert Counter(map(frequency_letter, train)) == {"r": 13, "c": 14, "f": 13}
    assert max(train) == 320
    assert sum(n <= 5 for n in train) >= 6
    assert {10, 11} <= set(train)


def test_all_40_names_differ_and_each_style_has_both_digits() -> None:
    assert len({category.name for category in CATEGORIES}) == 40
    assert Counter(category.style for category in CATEGORIES) == dict.fromkeys(range(20), 2)


def test_difficulty_cannot_measure_three_rare_categories_and_measures_the_others_on_4_images() -> (
    None
):
    counts = category_images(Settings())
    unmeasured = [c for c, n in enumerate(counts["difficulty"]) if n == 0]
    assert [counts["train"][c] for c in unmeasured] == [1, 2, 1]
    assert sorted(counts["difficulty"])[3] == 4
    assert min(counts["val"]) == 16


def test_each_category_is_planned_for_exactly_as_many_images_as_promised(
    plan: dict[str, list[Scene]],
) -> None:
    for part, counts in category_images(Settings()).items():
        assert [shown_pairs(plan[part])[c] for c in range(40)] == list(counts)


def test_the_parts_have_the_promised_sizes_and_2_to_6_digits_an_image(
    plan: dict[str, list[Scene]],
) -> None:
    assert {part: len(scenes) for part, scenes in plan.items()} == {
        "train": 701,
        "difficulty": 184,
        "val": 336,
    }
    sizes = Counter(len(scene.instances) for scenes in plan.values() for scene in scenes)
    assert set(sizes) == {2, 3, 4, 5, 6}


@given(st.integers(0, 1000), st.lists(st.integers(0, 60), min_size=1, max_size=45).filter(any))
@settings(max_examples=40, deadline=None)
def test_categories_are_placed_as_often_as_asked_and_never_twice_in_an_image(
    seed: int, counts: list[int]
) -> None:
    shown = place_categories(seed, "train", tuple(counts))
    assert all(len(set(image)) == len(image) for image in shown)
    found = Counter(category for image in shown for category in image)
    assert [found[c] for c in range(len(counts))] == counts


def test_a_quarter_of_the_images_has_a_twin_and_half_of_the_twins_is_not_annotated(
    plan: dict[str, list[Scene]],
) -> None:
    scenes = [s for s in plan["train"] if len({i.category for i in s.instances}) < 6]
    twins = [s for s in scenes if len({i.category for i in s.instances}) < len(s.instances)]
    hidden = [s for s in twins if not all(i.annotated for i in s.instances)]
    assert 0.2 < len(twins) / len(scenes) < 0.3
    assert 0.35 < len(hidden) / len(twins) < 0.65


def test_no_digit_is_in_train_and_in_difficulty_and_each_shows_its_categorys_digit(
    plan: dict[str, list[Scene]], digits: Digits
) -> None:
    used = {p: [i.digit for s in plan[p] for i in s.instances] for p in PARTS}
    assert len(set(used["train"])) == len(used["train"])
    assert not set(used["train"]) & set(used["difficulty"])
    for part, scenes in plan.items():
        labels = digits.test_labels if part == "val" else digits.train_labels
        assert all(
            int(labels[i.digit]) == CATEGORIES[i.category].digit
            for s in scenes
            for i in s.instances
        )


def test_train_and_difficulty_draw_from_mnists_training_part_and_val_from_its_test_part(
    digits: Digits,
) -> None:
    blank = replace(digits, test_images=torch.zeros_like(digits.test_images) + 255)
    for part, changes in (("train", False), ("difficulty", False), ("val", True)):
        scene = plan_scenes(TINY, digits)[part][0]
        seen, changed = (render_scene(scene, 3, d).pixels for d in (digits, blank))
        assert np.array_equal(seen, changed) is not changes


def test_ids_and_file_names_are_unique_over_the_parts(plan: dict[str, list[Scene]]) -> None:
    scenes = [scene for of_part in plan.values() for scene in of_part]
    assert len({scene.id for scene in scenes}) == len({scene.file for scene in scenes}) == 1221


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"seed": -1}, "--seed -1 is negative"),
        ({"divisor": 0.5}, "--divisor 0.5 is too small"),
        ({"divisor": math.nan}, "--divisor nan"),
        ({"divisor": math.inf}, "--divisor inf"),
    ],
)
def test_impossible_settings_are_refused_by_the_options_name(
    options: dict[str, float], sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        Settings(**options)  # type: ignore[arg-type]


# Styles.


def test_every_style_draws_a_tight_patch_that_fits_into_the_picture(digits: Digits) -> None:
    for place, style in enumerate(STYLES):
        for extreme in (0.0, 1 - 1e-9):
            numbers = np.full(NUM_DRAWS, extreme)
            for image in digits.train_images[40 * place : 40 * place + 10]:
                drawn = draw_digit(image, style, numbers).drawn
                edges = (drawn[0], drawn[-1], drawn[:, 0], drawn[:, -1])
                assert all(edge.any() for edge in edges)
                # Not as large as the patch it was drawn on, which would have cut it.
                assert max(drawn.shape) < 86


def test_no_two_styles_draw_the_same(digits: Digits) -> None:
    numbers = np.full(NUM_DRAWS, 0.5)
    drawings = [draw_digit(digits.train_images[0], style, numbers) for style in STYLES]
    seen = {(d.drawn.shape, (d.colours * d.drawn[..., None]).tobytes()) for d in drawings}
    assert len(seen) == 20


def test_a_bold_stroke_covers_the_fine_one_and_more(digits: Digits) -> None:
    for image in digits.train_images[:20]:
        fine, bold = (draw_stroke(image, 40, 0.01, bold=bold) for bold in (False, True))
        assert (bold | ~fine).all()
        assert bold.sum() > 1.2 * fine.sum()


def test_a_turned_stroke_is_the_upright_one_turned_a_quarter_clockwise(digits: Digits) -> None:
    image = digits.train_images[7]
    upright, turned = (draw_stroke(image, 40, angle, bold=True) for angle in (0, 0.25))
    # A pixel at exactly the threshold may fall to either side.
    assert (np.rot90(upright, -1) != turned).mean() < 1e-3


def test_an_upright_stroke_is_as_long_as_its_size() -> None:
    image = torch.zeros(28, 28, dtype=torch.uint8)
    image[4:24, 12:16] = 255
    stroke = draw_stroke(image, 40, 0, bold=False)
    assert (stroke.any(1).sum(), stroke.any(0).sum()) == (40, 8)


# Pictures and masks.


def drawn_scene(scene: Scene, digits: Digits) -> tuple[list[Drawing], list[Place | None]]:
    """The scene's digits in sizes and at places of this test's own."""
    drawings = [
        draw_digit(
            digits.train_images[instance.digit],
            STYLES[CATEGORIES[instance.category].style],
            numbers_of(f"{scene.number} {n}"),
        )
        for n, instance in enumerate(scene.instances)
    ]
    tries = numbers_of(f"{scene.number}", len(drawings) * 48).reshape(-1, 24, 2)
    return drawings, choose_places([drawing.drawn for drawing in drawings], tries)


def test_a_mask_is_the_difference_of_the_pictures_with_and_without_the_digit(
    plan: dict[str, list[Scene]], digits: Digits
) -> None:
    ground = draw_ground(numbers_of("ground", 10**4)[: digit_scenes._NUM_OF_GROUND])
    hidden = 0
    for scene in plan["train"][:30]:
        drawings, places = drawn_scene(scene, digits)
        top = paint(ground, drawings, places).top
        for n, drawing in enumerate(drawings):
            without = [None if m == n else place for m, place in enumerate(places)]
            differs = np.zeros(top.shape, bool)
            # On two grounds: a pixel may have the colour of one of them by chance.
            for behind in (ground, 255 - ground):
                pictures = [paint(behind, drawings, p).pixels for p in (places, without)]
                differs |= (pictures[0] != pictures[1]).any(-1)
            assert np.array_equal(differs, top == n)
            hidden += int(differs.sum() < drawing.drawn.sum())
    assert hidden > 5


def test_what_is_ground_in_the_map_shows_the_ground_alone(
    plan: dict[str, list[Scene]], digits: Digits
) -> None:
    drawings, places = drawn_scene(plan["train"][0], digits)
    ground = np.full((HEIGHT, WIDTH, 3), 100, np.uint8)
    picture = paint(ground, drawings, places)
    assert (picture.pixels[picture.top == GROUND] == 100).all()


def square(side: int, colour: int = 0) -> Drawing:
    return Drawing(np.full((side, side, 3), colour, np.uint8), np.ones((side, side), bool))


def test_later_digits_cover_earlier_ones_and_boxes_are_those_of_what_is_visible() -> None:
    ground = np.full((HEIGHT, WIDTH, 3), 100, np.uint8)
    picture = paint(ground, [square(10, 1), square(10, 2)], [(20, 30), (20, 27)])
    # Of the first, columns 30 to 36 are covered.
    assert (picture.pixels[20:30, 27:37] == 2).all()
    assert (picture.pixels[20:30, 37:40] == 1).all()
    scene = Scene("train", 0, (Instance(4, 0, True), Instance(7, 0, True)))
    found = annotate(scene, picture, seed=0)["annotations"]
    assert [entry["bbox"] for entry in found] == [[37, 20, 3, 10], [27, 20, 10, 10]]
    assert [entry["area"] for entry in found] == [30, 100]
    assert [entry["category_id"] for entry in found] == [5, 8]


def test_a_place_that_hides_too_much_is_passed_over_and_without_another_the_digit_is_left_out() -> (
    None
):
    masks = [square(10).drawn, square(10).drawn]
    # The picture leaves 119 x 151 places; the first digit is at (0, 0) by both its tries.
    onto, beside = (0.0, 0.0), (0.0, 10.5 / 151)
    three_columns, four_columns = (0.0, 7.5 / 151), (0.0, 6.5 / 151)

    def second(*tries: tuple[float, float]) -> Place | None:
        return choose_places(masks, np.array([[onto, onto], tries]))[1]

    assert MIN_VISIBLE == 0.7
    assert second(onto, beside) == (0, 10)
    assert second(three_columns, beside) == (0, 7)
    assert second(four_columns, beside) == (0, 10)
    assert second(onto, onto) is None


def test_a_digit_that_is_left_out_hides_nothing_and_needs_nothing() -> None:
    masks = [square(100).drawn, square(100).drawn, square(8).drawn]
    tries = np.array([[[0.5, 0.5]], [[0.5, 0.5]], [[0.0, 0.0]]])
    first, left_out, third = choose_places(masks, tries)
    assert left_out is None
    assert first == (14, 30)
    assert third == (0, 0)


def test_digits_stay_inside_the_picture_and_can_reach_its_edges() -> None:
    mask = [square(10).drawn]
    assert choose_places(mask, np.zeros((1, 1, 2))) == [(0, 0)]
    assert choose_places(mask, np.full((1, 1, 2), 1 - 1e-12)) == [(HEIGHT - 10, WIDTH - 10)]


def test_no_digit_of_the_default_set_is_left_out(
    plan: dict[str, list[Scene]], digits: Digits
) -> None:
    for scene in plan["difficulty"][:40]:
        top = render_scene(scene, 0, digits).top
        assert set(np.unique(top)) == {GROUND, *range(len(scene.instances))}


def test_an_image_depends_on_seed_part_and_number_alone(
    plan: dict[str, list[Scene]], digits: Digits
) -> None:
    scene = plan["train"][5]
    seen = render_scene(scene, 0, digits).pixels
    assert np.array_equal(render_scene(scene, 0, digits).pixels, seen)
    for other, seed in (
        (scene, 1),
        (replace(scene, number=6), 0),
        (replace(scene, part="difficulty"), 0),
    ):
        assert not np.array_equal(render_scene(other, seed, digits).pixels, seen)


def test_global_generators_are_left_alone(plan: dict[str, list[Scene]], digits: Digits) -> None:
    def states() -> tuple[bytes, str]:
        return torch.get_rng_state().numpy().tobytes(), str(np.random.get_state())

    before = states()
    render_scene(plan["train"][5], 0, digits)
    assert states() == before


# Annotations.


def all_entries(files: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    return [entry for file in files.values() for entry in file["annotations"]]


def test_masks_are_read_back_with_their_tight_box_and_area(
    files: dict[str, dict[str, Any]],
) -> None:
    for entry in all_entries(files):
        mask = coco_masks.decode(entry["segmentation"])
        assert mask.shape == (HEIGHT, WIDTH)
        assert mask.sum() == entry["area"] > 0
        x, y, wide, high = (int(value) for value in entry["bbox"])
        inside = mask[y : y + high, x : x + wide]
        assert inside.sum() == mask.sum()
        assert all(edge.any() for edge in (inside[0], inside[-1], inside[:, 0], inside[:, -1]))


def test_the_files_hold_what_is_visible_in_the_rendered_scenes(
    files: dict[str, dict[str, Any]], digits: Digits
) -> None:
    for part, scenes in plan_scenes(TINY, digits).items():
        by_image: dict[int, list[dict[str, Any]]] = {}
        for entry in files[part]["annotations"]:
            by_image.setdefault(entry["image_id"], []).append(entry)
        for scene in scenes:
            top = render_scene(scene, TINY.seed, digits).top
            wanted = [
                (i.category + 1, (top == n).tobytes())
                for n, i in enumerate(scene.instances)
                if i.annotated
            ]
            found = [
                (e["category_id"], coco_masks.decode(e["segmentation"]).astype(bool).tobytes())
                for e in by_image[scene.id]
            ]
            assert found == wanted


def test_counts_and_letters_are_those_of_the_training_part_in_all_three_files(
    files: dict[str, dict[str, Any]],
) -> None:
    assert files["train"]["categories"] == files["val"]["categories"]
    assert files["train"]["categories"] == files["difficulty"]["categories"]
    entries = files["train"]["annotations"]
    assert [category["id"] for category in files["train"]["categories"]] == list(range(1, 41))
    for category in files["train"]["categories"]:
        images = [e["image_id"] for e in entries if e["category_id"] == category["id"]]
        assert category["instance_count"] == len(images)
        assert category["image_count"] == len(set(images)) >= 1
        assert category["frequency"] == frequency_letter(category["image_count"])


@pytest.mark.parametrize(
    ("images", "letter"), [(1, "r"), (10, "r"), (11, "c"), (100, "c"), (101, "f")]
)
def test_letters_follow_lviss_thresholds(images: int, letter: str) -> None:
    entries = [{"category_id": 2, "image_id": n // 2} for n in range(2 * images)]
    category = digit_scenes._category_entries(entries)[1]
    assert (category["image_count"], category["instance_count"]) == (images, 2 * images)
    assert category["frequency"] == letter


def test_negatives_are_absent_from_the_picture_and_a_part_of_the_absent(
    plan: dict[str, list[Scene]], digits: Digits
) -> None:
    said = absent = 0
    for scene in plan["val"][:25]:
        shown = {instance.category + 1 for instance in scene.instances}
        image = annotate(scene, render_scene(scene, 0, digits), seed=0)
        assert not set(image["neg_category_ids"]) & shown
        assert set(image["neg_category_ids"]) <= set(range(1, 41))
        said, absent = said + len(image["neg_category_ids"]), absent + 40 - len(shown)
    assert 0.35 < said / absent < 0.45


def test_categories_that_are_not_exhaustive_have_an_annotated_and_an_unannotated_digit(
    plan: dict[str, list[Scene]], digits: Digits
) -> None:
    scenes = [s for s in plan["val"] if not all(i.annotated for i in s.instances)]
    assert len(scenes) > 20
    for scene in scenes[:15]:
        picture = render_scene(scene, 0, digits)
        image = annotate(scene, picture, seed=0)
        (category,) = image["not_exhaustive_category_ids"]
        annotated = [e for e in image["annotations"] if e["category_id"] == category]
        drawn = [n for n, i in enumerate(scene.instances) if i.category + 1 == category]
        assert len(annotated) == 1
        assert len(drawn) == 2
        assert all((picture.top == n).any() for n in drawn)
        assert len(image["annotations"]) == len(scene.instances) - 1


def test_images_with_every_digit_annotated_are_exhaustive(
    plan: dict[str, list[Scene]], digits: Digits
) -> None:
    scene = next(s for s in plan["val"] if all(i.annotated for i in s.instances))
    image = annotate(scene, render_scene(scene, 0, digits), seed=0)
    assert image["not_exhaustive_category_ids"] == []
    assert len(image["annotations"]) == len(scene.instances)


def test_a_digit_that_is_left_out_is_in_no_list() -> None:
    scene = Scene("train", 0, (Instance(4, 0, True), Instance(4, 1, False)))
    ground = np.full((HEIGHT, WIDTH, 3), 100, np.uint8)
    picture = paint(ground, [square(10), square(10)], [(0, 0), None])
    image = annotate(scene, picture, seed=0)
    assert image["not_exhaustive_category_ids"] == []
    assert [entry["category_id"] for entry in image["annotations"]] == [5]


def test_the_official_package_reads_every_part(folder: Path) -> None:
    lvis = pytest.importorskip("lvis.lvis")
    for part in PARTS:
        found = lvis.LVIS(str(folder / f"{part}.json"))
        assert found.get_cat_ids() == list(range(1, 41))
        entry = next(iter(found.anns.values()))
        assert found.ann_to_mask(entry).sum() == entry["area"]
        assert (folder / found.imgs[entry["image_id"]]["file_name"]).is_file()


# The files.


def test_the_images_hold_the_rendered_pixels_without_loss(folder: Path, digits: Digits) -> None:
    for scene in plan_scenes(TINY, digits)["val"][:4]:
        with Image.open(folder / scene.file) as image:
            pixels = np.asarray(image)
        assert np.array_equal(pixels, render_scene(scene, TINY.seed, digits).pixels)


def test_rendering_again_mends_what_is_missing_or_damaged_and_touches_no_other_image(
    tmp_path: Path,
) -> None:
    render_set(tmp_path, TINY, workers=1)
    whole = contents(tmp_path)
    images = sorted(tmp_path.rglob("*.png"))
    untouched = {path: path.stat().st_mtime_ns for path in images[2:]}
    images[0].unlink()
    images[1].write_bytes(images[1].read_bytes()[:500])
    (images[0].parent / ".killed.png.1.partial").write_bytes(b"half")
    render_set(tmp_path, TINY, workers=2)
    assert contents(tmp_path) == whole
    assert {path: path.stat().st_mtime_ns for path in images[2:]} == untouched


def test_an_interrupted_rendering_goes_on_to_the_same_set(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def interrupted(pixels: Any) -> bytes:
        calls.append(pixels)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return encode(pixels)

    with monkeypatch.context() as patch:
        patch.setattr(digit_scenes, "encode", interrupted)
        with pytest.raises(KeyboardInterrupt):
            render_set(tmp_path, TINY, workers=1)
    assert len(calls) < 10
    assert not (tmp_path / "train.json").exists()
    with pytest.raises(UserError, match=r"not rendered to its end; .*--seed 3 --divisor 1e\+06"):
        load_digit_scenes(tmp_path)
    render_set(tmp_path, TINY, workers=1)
    assert contents(tmp_path) == contents(folder)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"seed": 4}, r"other settings \(seed 3, not 4\)"),
        ({"divisor": 5.0}, r"other settings \(divisor 1e\+06, not 5\); give the same options"),
    ],
)
def test_a_folder_of_other_settings_is_refused_by_name(
    folder: Path, change: dict[str, float], sentence: str
) -> None:
    before = contents(folder)
    with pytest.raises(UserError, match=f"{folder} holds digit scenes of {sentence}"):
        render_set(folder, replace(TINY, **change), workers=1)  # type: ignore[arg-type]
    assert contents(folder) == before


def test_a_folder_of_an_older_renderer_or_with_damaged_settings_is_refused(tmp_path: Path) -> None:
    path = tmp_path / SETTINGS_FILE
    path.write_text(json.dumps({"version": 0, "seed": 3, "divisor": 1e6}))
    with pytest.raises(UserError, match=r"other settings \(version 0, not 1\)"):
        render_set(tmp_path, TINY, workers=1)
    path.write_bytes(b"\xff{")
    with pytest.raises(UserError, match=r"digit_scenes\.json is damaged"):
        render_set(tmp_path, TINY, workers=1)


@pytest.mark.parametrize("name", ["train", "val.json"])
def test_files_of_another_origin_are_not_mixed_with(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(UserError, match=f"{name} was not made by this command; give an empty"):
        render_set(tmp_path, TINY, workers=1)
    assert not (tmp_path / SETTINGS_FILE).exists()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/set.*Not a directory"):
        render_set(tmp_path / "file" / "set", TINY, workers=1)


def test_without_pycocotools_the_extra_to_install_is_named_and_nothing_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="pycocotools; install this project's extra 'detection'"):
        render_set(tmp_path / "set", TINY, workers=1)
    assert not (tmp_path / "set").exists()


# The command line.


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def call(*arguments: str) -> None:
        monkeypatch.setattr(sys, "argv", ["data_prep.digit_scenes", *arguments])
        run_main(digit_scenes.main)

    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)
    return call


def test_render_writes_the_set_of_its_options_and_prints_the_counts(
    call: Callable[..., None],
    tmp_path: Path,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    target = str(tmp_path / "set")
    call("render", "--folder", target, "--seed", "3", "--divisor", "1e6", "--workers", "2")
    assert "fine_blue_nine" in capsys.readouterr().out
    assert contents(tmp_path / "set") == contents(folder)


def test_show_prints_images_and_digits_of_each_category_and_its_letter(
    call: Callable[..., None],
    folder: Path,
    files: dict[str, dict[str, Any]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    call("show", "--folder", str(folder))
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split()[:3] == ["red_four", "r", "1"]
    sizes = [str(len(files[p][key])) for p in PARTS for key in ("images", "annotations")]
    assert lines[42].split() == ["all", *sizes]
    assert lines[43] == "rare 40, common 0, frequent 0 categories"
    assert lines[44].startswith("digest ")


def test_check_says_that_all_images_are_there(
    call: Callable[..., None],
    folder: Path,
    files: dict[str, dict[str, Any]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    call("check", "--folder", str(folder))
    total = sum(len(file["images"]) for file in files.values())
    assert f"all {total} images are there" in capsys.readouterr().out


def test_check_names_the_damaged_images_and_the_command_that_mends_them(
    call: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    render_set(tmp_path, TINY, workers=1)
    images = sorted((tmp_path / "val").iterdir())
    images[0].unlink()
    images[1].write_bytes(b"")
    images[2].write_bytes(images[2].read_bytes()[:1000])
    with pytest.raises(SystemExit, match="2"):
        call("check", "--folder", str(tmp_path))
    said = capsys.readouterr()
    assert all(f"missing or damaged: val/{path.name}" in said.out for path in images[:3])
    assert f"val/{images[3].name}" not in said.out
    command = (
        f"python -m data_prep.digit_scenes render --folder {tmp_path} --seed 3 --divisor 1e+06"
    )
    assert command in said.err
    call(*command.split()[3:])
    call("check", "--folder", str(tmp_path))


@pytest.mark.parametrize("command", ["check", "show"])
def test_a_damaged_annotation_file_is_named(
    command: str, call: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / SETTINGS_FILE).write_text("{}")
    for part in PARTS:
        (tmp_path / f"{part}.json").write_text('{"images": [')
    with pytest.raises(SystemExit, match="2"):
        call(command, "--folder", str(tmp_path))
    assert "train.json is damaged; render what is missing with: python" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["check", "show"])
def test_without_a_set_the_command_that_renders_it_is_named(
    command: str,
    call: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(digit_scenes.FOLDER_VARIABLE, str(tmp_path / "my images"))
    with pytest.raises(SystemExit, match="2"):
        call(command)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == (
        f"error: {tmp_path / 'my images'} holds no digit scenes; render what is missing with: "
        f"python -m data_prep.digit_scenes render --folder '{tmp_path / 'my images'}'.\n"
    )


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["render", "--seed", "-1"], "--seed -1 is negative"),
        (["render", "--workers", "0"], "--workers 0 is too few"),
        (["render", "--devisor", "2"], "--divisor"),
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
    monkeypatch.setenv(digit_scenes.FOLDER_VARIABLE, str(tmp_path / "set"))
    with pytest.raises(SystemExit, match="2"):
        call(*arguments)
    assert word in capsys.readouterr().err
    assert not (tmp_path / "set").exists()
