"""Reading speed of clips, in clips a second: python -m benchmarks.video.

The clips are rendered first, in the form of EGTEA's: 640 x 480 pixels, 24 frames/s, H.264, a key
frame every 250 frames, 72 frames. A blurred random texture (a kitchen is not a test card, and a
flat picture would decode too fast) moves along a path of its own in each clip, under fresh noise of
standard deviation 6 in every frame, as a small camera's sensor gives; x264 at its usual quality
(crf 23) then needs the bit rate that is printed.

Prints, from interleaved measurements in one process, medians and the spread. Our readers and decord
have one thread; the plain loop has as many as PyAV gives it when it is not asked. T = 10 evenly
spread frames of each clip are wanted; all ways give the same frames bit for bit, which is checked
first. The files are in memory after the first round: decoding is measured, not the disk.
"""

import argparse
import os
import statistics
import tempfile
from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.timing import (
    Job,
    Times,
    add_out,
    at_least,
    interleaved,
    ratios,
    seconds,
    show,
    write_shown,
)
from common.errors import UserError, run_main
from video.cache import FrameCache, fill
from video.reading import fit_frames, frame_indices, read_frames, uniform_positions

HEIGHT, WIDTH = 224, 299
"""What EGTEA's frames are fitted to."""
SLOW_CLIPS = 3
"""Of how many clips the ways of reading that take long are measured."""

Read = Callable[[Path], Tensor]
"""Wanted frames of a clip."""


def texture(generator: np.random.Generator, height: int, width: int) -> NDArray[np.int16]:
    """Blurred random colours, (2 height, 2 width, 3)."""
    grid = torch.from_numpy(generator.random((1, 3, height // 8 + 2, width // 8 + 2)) * 255)
    large = F.interpolate(grid, (2 * height, 2 * width), mode="bicubic")
    return np.ascontiguousarray(large[0].permute(1, 2, 0).numpy().astype(np.int16))


def render_clip(path: Path, seed: int, frames: int, height: int, width: int) -> Path:
    """Write one clip; ``seed`` chooses texture, path and noise."""
    generator = np.random.default_rng(seed)
    scene = texture(generator, height, width)
    # Twice the rows, read from a random one on: fresh for each frame and quickly made.
    noise = (6 * generator.standard_normal((2 * height, width, 1), np.float32)).astype(np.int16)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=24)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.gop_size, stream.options = 250, {"preset": "medium", "crf": "23"}
        stream.codec_context.thread_count = 1
        for number in range(frames):
            top = int(height / 2 * (1 + 0.9 * np.sin(number / 9 + seed)))
            left = int(width / 2 * (1 + 0.9 * np.cos(number / 13 + seed)))
            start = int(generator.integers(height))
            image = scene[top : top + height, left : left + width] + noise[start : start + height]
            picture = np.clip(image, 0, 255).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 24)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def read_plain(path: Path) -> Tensor:
    """Turn all frames into RGB and choose among them."""
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    wanted = frame_indices(uniform_positions(), len(frames)).tolist()
    return torch.stack([torch.from_numpy(frames[number]) for number in wanted])


def read_seeking(path: Path) -> Tensor:
    """For every wanted frame go to the key frame before it and decode from there."""
    images = []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.average_rate is not None
        assert stream.time_base is not None
        ticks = 1 / (stream.average_rate * stream.time_base)
        for number in frame_indices(uniform_positions(), stream.frames).tolist():
            time = int(number * ticks)
            container.seek(time, stream=stream)
            for frame in container.decode(stream):
                if frame.pts is not None and frame.pts >= time:
                    images.append(torch.from_numpy(frame.to_ndarray(format="rgb24")))
                    break
    return torch.stack(images)


def read_decord_alone(path: Path) -> Tensor:
    """As decord's own page shows it."""
    import decord

    video = decord.VideoReader(str(path), num_threads=1)
    wanted = frame_indices(uniform_positions(), len(video)).tolist()
    return torch.from_numpy(video.get_batch(wanted).asnumpy())


def fitted(read: Read) -> Read:
    """With the frames made smaller, as a training step wants them."""
    return lambda path: fit_frames(read(path), HEIGHT, WIDTH)


def read_from(cache: FrameCache, path: Path) -> Tensor:
    """From the cache, by the stem of the clip's name."""
    frames = cache.read(path.stem, uniform_positions())
    assert frames is not None
    return frames


def ways_of_reading() -> dict[str, Read]:
    """All that read whole frames, by name; decord only if it is installed."""
    positions = uniform_positions()
    ways: dict[str, Read] = {
        "plain": read_plain,
        "seeking": read_seeking,
        "pyav": lambda path: read_frames(path, positions),
    }
    try:
        import decord  # noqa: F401
    except ImportError:
        print("decord is not installed: left out")
        return ways
    ways["decord alone"] = read_decord_alone
    ways["decord"] = lambda path: read_frames(path, positions, "decord")
    return ways


def check_equal(ways: Mapping[str, Read], path: Path) -> None:
    """Every way gives the same frames.

    Raises:
        UserError: one does not.
    """
    expected = read_plain(path)
    for name, read in ways.items():
        if not torch.equal(read(path), expected):
            raise UserError(f"{name} reads other frames than the plain loop; report this.")


def make_jobs(clips: list[Path], cache: FrameCache) -> dict[str, Job]:
    """What is timed, by name; each gives its seconds per clip."""
    ways = ways_of_reading()
    check_equal(ways, clips[0])
    fill(cache, [({path.stem: path for path in clips}, "all")], workers=1)
    ways |= {
        f"{name}, fitted": fitted(read)
        for name, read in ways.items()
        if name in ("plain", "pyav", "decord")
    }
    ways["cache, fitted"] = partial(read_from, cache)

    def per_clip(read: Read, paths: list[Path]) -> float:
        return seconds(lambda: [read(path) for path in paths]) / len(paths)

    slow = ("plain", "seeking", "plain, fitted")
    few = clips[:SLOW_CLIPS]
    return {
        name: partial(per_clip, way, few if name in slow else clips) for name, way in ways.items()
    }


_LABELS = {
    "plain": "PyAV, all frames to RGB, then chosen",
    "seeking": "PyAV, seeking for each frame",
    "decord alone": "decord, get_batch",
    "decord": "our reader, decord",
    "pyav": "our reader, PyAV",
    "plain, fitted": "PyAV, all frames to RGB, then chosen and fitted",
    "decord, fitted": "our reader, decord, and fitted",
    "pyav, fitted": "our reader, PyAV, and fitted",
    "cache, fitted": "cache (fitted frames, checked)",
}


def report(times: Times) -> None:
    """Print the figures; every ratio is taken round by round."""
    for name, label in _LABELS.items():
        if name in times:
            show(label, [1 / t for t in times[name]], "clips/s")
    show("our reader, PyAV, over the plain loop", ratios(times["plain"], times["pyav"]), "times")
    if "decord alone" in times:
        gain = ratios(times["decord alone"], times["pyav"])
        show("our reader, PyAV, over decord", gain, "times")
    gain = ratios(times["pyav, fitted"], times["cache, fitted"])
    show("cache over our reader, PyAV, and fitted", gain, "times")


def render(folder: Path, clips: int, frames: int, height: int, width: int) -> list[Path]:
    """Render all clips and say what they are."""
    paths = [
        render_clip(folder / f"clip{seed}.mp4", seed, frames, height, width)
        for seed in range(clips)
    ]
    rate = statistics.median(8 * path.stat().st_size / (frames / 24) for path in paths)
    size = f"{width} x {height}"
    print(f"{clips} clips of {frames} frames, {size}, H.264 of {rate / 1e6:.2f} Mbit/s", flush=True)
    return paths


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=at_least(1), default=5, help="measurements, interleaved")
    parser.add_argument("--clips", type=at_least(1), default=12, help="how many are rendered")
    parser.add_argument("--frames", type=at_least(1), default=72, help="of each clip")
    add_out(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        os.makedirs(f"{name}/clips")
        clips = render(Path(name) / "clips", options.clips, options.frames, 480, 640)
        cache = FrameCache(Path(name) / "cache", HEIGHT, WIDTH)
        report(interleaved(make_jobs(clips, cache), options.rounds))
    write_shown(options.out, "python -m benchmarks.video", options.rounds, torch.device("cpu"))


if __name__ == "__main__":
    run_main(main)
