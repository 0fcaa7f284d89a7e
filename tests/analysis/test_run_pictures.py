import base64

import pytest

from analysis import run_pictures
from analysis.run_pictures import pictures_of

PNG = b"\x89PNG\r\n\x1a\n" + b"rest"


@pytest.fixture
def left(finish):
    """Finish runs and leave ``content`` as the picture of each."""

    def make(*records, content=PNG):
        folder = finish(*records)
        for record in records:
            (folder / record["group"] / record["run"] / "pictures.png").write_bytes(content)
        return folder

    return make


def test_a_picture_that_a_run_left_becomes_an_address_of_its_bytes(left, finish, make_detection):
    record, other = make_detection(), make_detection("rfs")
    folder = left(record)
    finish(other)
    urls, sentences = pictures_of(folder, [record, other])
    (address,) = urls.values()
    assert list(urls) == [f"digit-scenes/{record['run']}"]
    assert address == f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
    assert not sentences


def test_pictures_beyond_the_bound_are_named(left, make_detection, monkeypatch):
    monkeypatch.setattr(run_pictures, "MOST_PICTURES", 1)
    records = [make_detection(seed=seed) for seed in range(3)]
    urls, sentences = pictures_of(left(*records), records)
    assert list(urls) == [f"digit-scenes/{records[0]['run']}"]
    assert [records[n]["run"] in s for n, s in zip((1, 2), sentences, strict=True)] == [True, True]


@pytest.mark.parametrize(
    ("content", "reason"), [(b"", "no PNG"), (b"<svg>", "no PNG"), (PNG * 20, "larger than")]
)
def test_what_is_no_picture_or_too_large_is_left_out_and_named(
    left, make_detection, monkeypatch, content, reason
):
    monkeypatch.setattr(run_pictures, "MOST_BYTES", 100)
    record = make_detection()
    urls, (sentence,) = pictures_of(left(record, content=content), [record])
    assert not urls
    assert "pictures.png is left out" in sentence
    assert reason in sentence
