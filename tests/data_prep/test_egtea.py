import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from common.errors import UserError, run_main
from data_prep import clips, egtea
from data_prep.clips import split_notes
from data_prep.egtea import load_egtea_splits

ROOT = Path(egtea.__file__).parents[1]

# By verb id 1 to 19, counted in the official lists of split 1 and the authors' division of it.
TRAIN = (429, 779, 1421, 822, 129, 1335, 130, 308, 223, 249, 54, 54, 139, 42, 78, 117, 26, 15, 22)
DIFFICULTY = (173, 255, 447, 23, 75, 396, 59, 92, 112, 109, 36, 36, 14, 20, 30, 22, 6, 15, 7)
TEST = (150, 253, 454, 208, 51, 420, 46, 98, 81, 85, 22, 22, 37, 15, 26, 33, 7, 7, 7)


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["data_prep.egtea", *arguments])
    run_main(egtea.main)


def test_the_carried_splits_have_the_papers_sizes_and_class_counts() -> None:
    split = load_egtea_splits()
    # Sec. 4.3.1: 8299 clips to train on, of which 1927 are set apart, and 2022 to test on.
    assert len(split.train.names) + len(split.difficulty.names) == 8299
    assert len(split.difficulty.names) == 1927
    assert len(split.test.names) == 2022
    assert split.train_counts == TRAIN
    assert split.difficulty_counts == DIFFICULTY
    assert split.test_counts == TEST
    assert split.imbalance == pytest.approx(94.7333, abs=1e-4)
    assert len(set(split.clips)) == 8299 + 2022


def test_the_head_verbs_are_take_put_open_cut_and_read_as_under_table_8() -> None:
    split = load_egtea_splits()
    names = [split.class_names[label] for label in split.head]
    assert names == ["Take", "Put", "Open", "Cut", "Inspect/Read"]
    # Verb ids 3, 6, 2, 4 and 1.
    assert split.head == (2, 5, 1, 3, 0)
    assert len(split.tail) == 14


def test_the_averages_over_train_and_difficulty_are_the_papers() -> None:
    split = load_egtea_splits()
    # Sec. 4.3.1: 1216 for the 5 most frequent classes, 158.5 for the rest.
    assert split.average_frequency(split.head) == 1216
    assert split.average_frequency(split.tail) == 158.5
    assert split.average_frequency(split.head) == egtea.PAPER_AVERAGES["head"]
    assert split.average_frequency(split.tail) == egtea.PAPER_AVERAGES["tail"]
    by_hand = sorted((a + b for a, b in zip(TRAIN, DIFFICULTY, strict=True)), reverse=True)
    assert (sum(by_hand[:5]) / 5, sum(by_hand[5:]) / 14) == (1216, 158.5)


def test_clip_names_say_person_recipe_and_times() -> None:
    split = load_egtea_splits()
    assert split.train.names[0] == "P19-R03-BaconAndEggs-806419-820160-F019321-F019717"
    assert split.train.labels[0] == 0
    assert all(name.count("-") == 6 for name in split.clips)


def test_the_notes_say_that_the_difficulty_set_is_not_balanced_and_holds_6_clips_of_a_verb() -> (
    None
):
    assert split_notes(load_egtea_splits()) == [
        "The difficulty set is not balanced: 6 (Compress) to 447 (Take) clips a verb; the accuracy "
        "of a verb with 6 clips moves in steps of 0.17.",
        "The test set is not balanced: 7 (Compress and 2 more) to 454 (Take) clips a verb; the "
        "accuracy of a verb with 7 clips moves in steps of 0.14.",
    ]


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The carried lists in a folder that can be spoilt."""
    folder = tmp_path / "egtea_splits"
    shutil.copytree(egtea.SPLIT_FOLDER, folder)
    monkeypatch.setattr(egtea, "SPLIT_FOLDER", folder)
    return folder


@pytest.mark.parametrize("name", egtea.SHA256)
def test_a_changed_list_is_refused_by_name_with_the_way_to_restore_it(
    name: str, copied: Path
) -> None:
    path = copied / name
    # Still a list of the right form.
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[1:], lines[0]]))
    with pytest.raises(UserError, match=f"{name} is not the original list .* git checkout -- data"):
        load_egtea_splits()


@pytest.mark.parametrize("name", egtea.SHA256)
def test_a_missing_list_is_refused_by_name(name: str, copied: Path) -> None:
    (copied / name).unlink()
    with pytest.raises(UserError, match=f"{name} is missing; restore it"):
        load_egtea_splits()


def test_the_files_are_the_ones_whose_sha256_the_readme_gives() -> None:
    readme = (ROOT / "data_prep" / "README.md").read_text(encoding="utf-8")
    for name, digest in egtea.SHA256.items():
        content = (egtea.SPLIT_FOLDER / name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == digest
        assert f"`{name}`" in readme
        assert digest in readme


def test_the_authors_licence_is_carried_with_their_lists() -> None:
    text = (egtea.SPLIT_FOLDER / "LICENSE.txt").read_text(encoding="utf-8")
    assert "Copyright (c) Hitachi, Ltd." in text
    assert "must retain the above copyright notice" in text


# The command line.


def test_show_prints_counts_head_and_tail_the_notes_and_the_averages(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call(monkeypatch, "show")
    lines = capsys.readouterr().out.splitlines()
    assert lines[:4] == [
        "verb               train  difficulty   test  group",
        "Inspect/Read         429         173    150  head",
        "Open                 779         255    253  head",
        "Take                1421         447    454  head",
    ]
    assert lines[17:21] == [
        "Compress              26           6      7  tail",
        "Crack                 15          15      7  tail",
        "Squeeze               22           7      7  tail",
        "all                 6372        1927   2022",
    ]
    assert lines[21] == "imbalance 94.7333 (largest over smallest number of training clips)"
    assert lines[22].startswith("The difficulty set is not balanced: 6 (Compress) to 447 (Take)")
    assert lines[-2:] == [
        "head: 5 verbs with 1216 clips on average in train + difficulty (paper: 1216)",
        "tail: 14 verbs with 158.5 clips on average in train + difficulty (paper: 158.5)",
    ]


@pytest.fixture
def clip_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of all clips, one sub-folder per recording; a file that says so is unreadable."""

    def probe(path: Path) -> None:
        if path.read_bytes():
            raise UserError(f"{path} cannot be used.")

    monkeypatch.setattr(clips, "_load_decoder", lambda: probe)
    folder = tmp_path / "cropped_clips"
    for name in load_egtea_splits().clips:
        recording = folder / name.rsplit("-", 4)[0]
        recording.mkdir(parents=True, exist_ok=True)
        (recording / f"{name}.mp4").touch()
    return folder


def test_check_finds_the_clips_where_the_variable_says(
    clip_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CDB_EGTEA", str(clip_folder))
    call(monkeypatch, "check")
    assert capsys.readouterr().out == (
        f"{clip_folder}: all 10321 clips are there and can be read\n"
    )


def test_check_names_what_is_missing_and_unreadable_and_exits_with_2(
    clip_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second, third = (next(clip_folder.rglob(f"{name}.mp4")) for name in (
        "P19-R03-BaconAndEggs-806419-820160-F019321-F019717",
        "P21-R04-ContinentalBreakfast-291175-294945-F006979-F007088",
        "P04-R06-GreekSalad-682170-683940-F016368-F016419",
    ))  # fmt: skip
    first.unlink()
    second.write_bytes(b"broken")
    third.rename(third.with_name(third.name.lower()))
    with pytest.raises(SystemExit, match="2"):
        call(monkeypatch, "check", "--folder", str(clip_folder), "--threads", "2")
    captured = capsys.readouterr()
    assert captured.out.splitlines() == [
        f"{first.stem} is missing.",
        f"{third.stem} is missing; {third.with_name(third.name.lower())} differs in upper and "
        "lower case.",
        f"{second} cannot be used.",
    ]
    assert (
        f"error: {clip_folder}: of 10321 clips 2 are missing, 0 have two files and 1 are "
        "unreadable; name the folder of EGTEA's trimmed clips"
    ) in captured.err


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["check", "--folder", "nowhere"], "nowhere is missing; name the folder of EGTEA's"),
        (["check", "--folde", "nowhere"], "--folder"),
        (["show", "--folder", "nowhere"], "--folder"),
    ],
)
def test_a_mistake_on_the_command_line_exits_with_2_and_names_it(
    arguments: list[str],
    word: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit, match="2"):
        call(monkeypatch, *arguments)
    captured = capsys.readouterr()
    assert word in captured.err
    assert captured.out == ""


def test_the_usual_folder_is_used_when_none_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CDB_EGTEA", raising=False)
    assert egtea.default_folder() == Path("data/egtea")
    monkeypatch.setenv("CDB_EGTEA", "/videos")
    assert egtea.default_folder() == Path("/videos")


def test_the_splits_are_read_without_torch_and_without_pyav() -> None:
    code = (
        "import sys; from data_prep.egtea import load_egtea_splits; load_egtea_splits(); "
        "print({'torch', 'av'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "set()\n"
