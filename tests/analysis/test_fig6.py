from pathlib import Path

import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from analysis.figures import fig6
from analysis.figures.__main__ import Options, main, paper_figures
from analysis.figures.style import styled
from data_prep.clips import ClipList, VerbSplit


def drawn(split: VerbSplit | None = None) -> Figure:
    return styled(lambda: fig6.draw(split))


def small_split(frequency: tuple[int, ...]) -> VerbSplit:
    """One difficulty clip of each verb, the others for training."""
    labels = tuple(c for c, count in enumerate(frequency) for _ in range(count - 1))
    verbs = tuple(range(len(frequency)))
    return VerbSplit(
        class_names=tuple(f"verb {c}" for c in verbs),
        train=ClipList(tuple(f"train-{i}" for i in range(len(labels))), labels),
        difficulty=ClipList(tuple(f"difficulty-{c}" for c in verbs), verbs),
        test=ClipList(("test-0",), (0,)),
    )


def test_fig6_shows_train_and_difficulty_clips_of_each_verb_in_order_of_frequency() -> None:
    (axes,) = drawn().axes
    # By hand from the official list of split 1 (train + difficulty are its 8,299 clips).
    assert [bar.get_height() for bar in axes.patches] == [
        1868, 1731, 1034, 845, 602, 400, 358, 335, 204, 189, 153, 139, 108, 90, 90, 62, 32, 30, 29,
    ]  # fmt: skip
    names = [label.get_text() for label in axes.get_xticklabels()]
    assert names[:6] == ["Take", "Put", "Open", "Cut", "Inspect/Read", "Close"]
    assert names[-3:] == ["Compress", "Crack", "Squeeze"]
    assert [bar.get_center()[0] for bar in axes.patches] == pytest.approx(list(range(19)))


def test_fig6_colours_the_five_head_verbs_apart_from_the_fourteen_tail_verbs() -> None:
    (axes,) = drawn().axes
    colours = [bar.get_facecolor() for bar in axes.patches]
    assert len(set(colours[:5])) == len(set(colours[5:])) == 1
    assert colours[0] != colours[5]
    legend = axes.get_legend()
    assert [text.get_text() for text in legend.get_texts()] == [
        "head (majority) verbs, 5", "tail (minority) verbs, 14",
    ]  # fmt: skip


def test_fig6_names_the_papers_two_averages_and_draws_them_at_their_height() -> None:
    (axes,) = drawn().axes
    texts = [text.get_text() for text in axes.texts]
    assert "average of the head: 1216" in texts
    assert "average of the tail: 158.5" in texts
    lines = [collection.get_segments()[0] for collection in axes.collections]
    assert [line[:, 1].tolist() for line in lines] == [[1216, 1216], [158.5, 158.5]]


def test_fig6_sorts_verbs_that_stand_in_another_order() -> None:
    (axes,) = drawn(small_split((2, 9, 4, 3, 8, 7))).axes
    assert [bar.get_height() for bar in axes.patches] == [9, 8, 7, 4, 3, 2]
    names = [label.get_text() for label in axes.get_xticklabels()]
    assert names == ["verb 1", "verb 4", "verb 5", "verb 2", "verb 3", "verb 0"]


def test_fig6_of_five_verbs_has_no_tail() -> None:
    (axes,) = drawn(small_split((2, 3, 4, 5, 6))).axes
    assert len(axes.patches) == 5
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "head (majority) verbs, 5",
    ]  # fmt: skip


def test_fig6_is_offered_without_any_run_and_is_not_blank(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "fig6" in paper_figures()
    results, runs = tmp_path / "results", tmp_path / "runs"
    results.mkdir()
    runs.mkdir()
    main(Options(out=tmp_path / "figures", results=results, runs=runs))
    path = tmp_path / "figures" / "fig6.png"
    assert str(path) in capsys.readouterr().out.splitlines()
    assert path.with_suffix(".svg").is_file()
    assert float((imread(path)[..., :3].min(axis=-1) < 0.9).mean()) > 0.01
