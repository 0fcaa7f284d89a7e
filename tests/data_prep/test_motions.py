import math
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ks_2samp
from torch import Tensor

from data_prep import motions
from data_prep.motions import (
    HEIGHT,
    LARGEST,
    LONGEST,
    NUM_DRAWS,
    NUM_PLACES,
    SHORTEST,
    SMALLEST,
    VERBS,
    WIDTH,
    Draws,
    Motion,
    State,
    follow,
    ink_size,
)

CLIPS = 1000
FRAMES = (0, 11, SHORTEST - 1)
# 19 verbs x 3 frames x 16 tests: by chance one of them falls below this once in 100 seeds.
LEAK = 1e-5
# The greatest part of a clip between two of 10 frames drawn from its tenths.
LONGEST_GAP = 0.2 + 1 / SHORTEST


def draw(clips: int, seed: int) -> Draws:
    generator = torch.Generator().manual_seed(seed)
    return Draws.of(torch.rand(clips, NUM_DRAWS, generator=generator, dtype=torch.float64))


def parts(state: State) -> dict[str, Tensor]:
    return {name: getattr(state, name) for name in ("x", "y", "angle", "size")}


def one(share: float = 0.0, **given: float) -> Draws:
    """One clip whose draws are all ``share`` but those given."""
    draws = Draws.of(torch.full((1, NUM_DRAWS), share, dtype=torch.float64))
    return replace(draws, **{name: at(value)[None] for name, value in given.items()})


def at(*times: float) -> Tensor:
    return torch.tensor(times, dtype=torch.float64)


# A single frame tells nothing.


def sampled(motion: Motion, frame: int, seed: int) -> dict[str, np.ndarray]:
    """x, y, angle and size at one frame of clips of all lengths; sum and difference of each two.

    Of two numbers that are uniform and independent, both are uniform on the circle.
    """
    lengths = torch.arange(SHORTEST, LONGEST + 1)
    own = torch.randint(len(lengths), (CLIPS, 1), generator=torch.Generator().manual_seed(seed))
    state = parts(follow(motion, draw(CLIPS, seed), frame / lengths.double()))
    values = {name: part.gather(1, own)[:, 0].numpy() for name, part in state.items()}
    pairs = list(combinations(values, 2))
    sums = {f"{a} + {b}": (values[a] + values[b]) % 1 for a, b in pairs}
    differences = {f"{a} - {b}": (values[a] - values[b]) % 1 for a, b in pairs}
    return values | sums | differences


@pytest.fixture(scope="module")
def all_verbs() -> dict[int, list[dict[str, np.ndarray]]]:
    return {
        frame: [sampled(motion, frame, seed) for seed, motion in enumerate(VERBS.values())]
        for frame in FRAMES
    }


def smallest_p(one_class: dict[str, np.ndarray], others: list[dict[str, np.ndarray]]) -> float:
    """Of the Kolmogorov-Smirnov tests of one class against the pooled others."""
    pooled = {name: np.concatenate([other[name] for other in others]) for name in one_class}
    return min(ks_2samp(one_class[name], pooled[name]).pvalue for name in one_class)


@pytest.mark.parametrize("label", range(19))
def test_the_state_at_one_frame_tells_nothing_about_the_verb(
    all_verbs: dict[int, list[dict[str, np.ndarray]]], label: int
) -> None:
    for of_frame in all_verbs.values():
        assert smallest_p(of_frame[label], of_frame[:label] + of_frame[label + 1 :]) > LEAK


def from_the_left_edge(draws: Draws, time: Tensor) -> State:
    return motions.slide(1, 0)(replace(draws, x=torch.zeros_like(draws.x)), time)


def from_the_smallest_size(draws: Draws, time: Tensor) -> State:
    return motions.grow(1)(replace(draws, size=torch.zeros_like(draws.size)), time)


def around_the_middle(draws: Draws, time: Tensor) -> State:
    middle = torch.full_like(draws.x, 0.5)
    return motions.circle(1)(replace(draws, x=middle, y=middle), time)


def upright(draws: Draws, time: Tensor) -> State:
    return motions.still(replace(draws, angle=0.1 * draws.angle), time)


def pulsing_as_a_sine(draws: Draws, time: Tensor) -> State:
    """Stays longer at both ends than in between."""
    wave = torch.sin(math.tau * (draws.size + time))
    return replace(motions.still(draws, time), size=0.4999 * (1 + wave))


def along_its_own_axis(draws: Draws, time: Tensor) -> State:
    """Each of x and angle is uniform, but one gives the other away."""
    return motions.slide(1, 0)(replace(draws, angle=draws.x), time)


@pytest.mark.parametrize(
    "leaky",
    [
        from_the_left_edge,
        from_the_smallest_size,
        around_the_middle,
        upright,
        pulsing_as_a_sine,
        along_its_own_axis,
    ],
)
def test_a_motion_that_leaks_into_a_single_frame_is_caught(
    all_verbs: dict[int, list[dict[str, np.ndarray]]], leaky: Motion
) -> None:
    found = [smallest_p(sampled(leaky, frame, 77), all_verbs[frame]) for frame in FRAMES]
    assert min(found) < LEAK


# Ten frames tell all.


def steps(values: np.ndarray) -> np.ndarray:
    """The shortest way between neighbours on the circle, (T - 1,); rounding is dropped."""
    change = np.diff(values)
    return np.round(change - np.floor(change + 0.5), 9)


def recognise(x: np.ndarray, y: np.ndarray, angle: np.ndarray, size: np.ndarray) -> str:
    """The verb of T states of one clip, by rules written without a look at the motions."""
    turned, grown = steps(angle), steps(size)
    if grown.any():
        up, down = (grown >= 0).all(), (grown <= 0).all()
        return "Grow" if up else "Shrink" if down else "Pulse"
    if turned.any():
        return {True: "Spin clockwise", False: "Spin anticlockwise"}[bool((turned >= 0).all())]
    dx, dy = steps(x) * WIDTH, steps(y) * HEIGHT
    if not dx.any() and not dy.any():
        return "Stay still"
    return recognise_path(dx, dy)


def recognise_path(dx: np.ndarray, dy: np.ndarray) -> str:
    right, down = np.sign(dx[dx != 0]), np.sign(dy[dy != 0])
    if not dy.any() and len(set(right)) > 1:
        return "Swing horizontally"
    if not dx.any() and len(set(down)) > 1:
        return "Swing vertically"
    if np.allclose(dx[:, None] * dy, dx * dy[:, None], atol=1e-4):
        level = "right" if dx.sum() > 1 else "left" if dx.sum() < -1 else ""
        upright = "down" if dy.sum() > 1 else "up" if dy.sum() < -1 else ""
        return "Slide " + " and ".join(way for way in (level, upright) if way)
    path = np.cumsum(dx), np.cumsum(dy)
    on_circle = np.stack([*path, np.ones_like(dx)], axis=1)
    squares = path[0] ** 2 + path[1] ** 2
    fitted = on_circle @ np.linalg.lstsq(on_circle, squares, rcond=None)[0]
    if not np.allclose(fitted, squares, atol=1e-3):
        return "Jitter"
    moving = (dx != 0) | (dy != 0)
    dx, dy = dx[moving], dy[moving]
    turn = (dx[:-1] * dy[1:] - dy[:-1] * dx[1:]).sum()
    return "Circle clockwise" if turn > 0 else "Circle anticlockwise"


@pytest.mark.parametrize("random", [True, False])
@pytest.mark.parametrize("verb", VERBS)
def test_ten_frames_of_a_clip_of_any_length_tell_the_verb(verb: str, random: bool) -> None:
    """Drawn from the tenths of the clip as in training, or from their middles."""
    generator = np.random.default_rng(0)
    for frames in range(SHORTEST, LONGEST + 1):
        places = generator.random(10) if random else np.full(10, 0.5)
        time = np.floor((np.arange(10) + places) / 10 * frames) / frames
        state = follow(VERBS[verb], draw(4, frames), torch.from_numpy(time))
        for clip in range(4):
            seen = [part[clip].numpy() for part in parts(state).values()]
            assert recognise(*seen) == verb


@pytest.mark.parametrize("verb", VERBS)
def test_no_direction_can_be_mistaken_for_its_opposite(verb: str) -> None:
    """The fastest motion, over the longest gap, covers less than half of each circle."""
    if verb in ("Jitter", "Pulse"):
        return  # They have no direction.
    phases = torch.linspace(0, 1, 101, dtype=torch.float64)[:-1, None]
    fastest = Draws.of(torch.full((100, NUM_DRAWS), 1.0, dtype=torch.float64))
    state = VERBS[verb](replace(fastest, phase=phases), at(0, LONGEST_GAP))
    for name, part in parts(state).items():
        assert part.diff(dim=1).abs().max() < 0.45, name


# Each motion, worked by hand.


@pytest.mark.parametrize(
    ("verb", "right", "down"),
    [
        ("Slide right", 25, 0),
        ("Slide left", -25, 0),
        ("Slide up", 0, -25),
        ("Slide down", 0, 25),
        ("Slide right and up", 25 / math.sqrt(2), -25 / math.sqrt(2)),
        ("Slide right and down", 25 / math.sqrt(2), 25 / math.sqrt(2)),
        ("Slide left and up", -25 / math.sqrt(2), -25 / math.sqrt(2)),
        ("Slide left and down", -25 / math.sqrt(2), 25 / math.sqrt(2)),
    ],
)
def test_the_slowest_slide_covers_25_pixels_in_half_a_clip(
    verb: str, right: float, down: float
) -> None:
    state = follow(VERBS[verb], one(x=0.5, y=0.5), at(0, 0.5))
    assert state.x[0].tolist() == pytest.approx([0.5, 0.5 + right / 80])
    assert state.y[0].tolist() == pytest.approx([0.5, 0.5 + down / 64])
    assert state.angle.tolist() == state.size.tolist() == [[0, 0]]


def test_what_leaves_on_the_right_comes_in_on_the_left() -> None:
    state = follow(VERBS["Slide right"], one(x=0.75), at(0.5))
    assert state.x.item() == pytest.approx(0.75 + 25 / 80 - 1)


@pytest.mark.parametrize(("verb", "sign"), [("Circle clockwise", 1), ("Circle anticlockwise", -1)])
def test_a_circle_begins_on_the_right_and_goes_down_if_clockwise(verb: str, sign: int) -> None:
    quarter = 0.25 / motions.CIRCLES[0]
    state = follow(VERBS[verb], one(x=0.5, y=0.5), at(0, quarter, 2 * quarter))
    assert (80 * state.x[0]).tolist() == pytest.approx([40 + 11, 40, 40 - 11])
    assert (64 * state.y[0]).tolist() == pytest.approx([32, 32 + sign * 11, 32])


def test_a_swing_goes_to_both_sides_of_its_middle_along_one_axis() -> None:
    quarter = 0.25 / motions.SWINGS[0]
    times = at(0, quarter, 2 * quarter, 3 * quarter)
    level = follow(VERBS["Swing horizontally"], one(x=0.5, y=0.5), times)
    assert (80 * level.x[0]).tolist() == pytest.approx([40, 51, 40, 29])
    assert level.y[0].tolist() == [0.5] * 4
    upright = follow(VERBS["Swing vertically"], one(x=0.5, y=0.5), times)
    assert (64 * upright.y[0]).tolist() == pytest.approx([32, 43, 32, 21])
    assert upright.x[0].tolist() == [0.5] * 4


def test_spins_turn_and_nothing_else() -> None:
    clockwise = follow(VERBS["Spin clockwise"], one(x=0.3, y=0.6), at(0, 0.5))
    assert clockwise.angle[0].tolist() == pytest.approx([0, 0.35])
    other = follow(VERBS["Spin anticlockwise"], one(x=0.3, y=0.6), at(0, 0.5))
    assert other.angle[0].tolist() == pytest.approx([0, 0.65])
    for state in (clockwise, other):
        assert (state.x.unique().tolist(), state.y.unique().tolist()) == ([0.3], [0.6])
        assert state.size.tolist() == [[0, 0]]


def test_growing_begins_again_and_shrinking_is_its_reverse() -> None:
    times = at(0, 0.3, 0.6)
    grown = follow(VERBS["Grow"], one(size=0.5), times)
    assert grown.size[0].tolist() == pytest.approx([0.5, 0.8, 0.1])
    shrunk = follow(VERBS["Shrink"], one(size=0.5), times)
    assert shrunk.size[0].tolist() == pytest.approx([0.5, 0.2, 0.9])


def test_a_pulse_grows_and_shrinks_without_a_jump() -> None:
    speed = motions.PULSES[0]
    state = follow(VERBS["Pulse"], one(), at(0, 0.25 / speed, 0.5 / speed, 0.75 / speed))
    assert state.size[0].tolist() == pytest.approx([0, 0.5, 1, 0.5])
    fine = follow(VERBS["Pulse"], draw(20, 0), torch.linspace(0, 1, 1001, dtype=torch.float64))
    assert fine.size.diff(dim=1).abs().max() < 0.003


def test_a_jitter_holds_a_place_and_jumps_to_the_next() -> None:
    draws = draw(1, 0)
    draws = replace(draws, phase=torch.zeros(1, 1), speed=torch.zeros(1, 1))
    state = follow(VERBS["Jitter"], draws, at(0, 0.14, 0.15, 0.99))
    order = [0, 0, 1, 6]  # 7 holds of 0.143 of the clip
    assert state.x[0].tolist() == draws.places[0, order, 0].tolist()
    assert state.y[0].tolist() == draws.places[0, order, 1].tolist()


def test_the_fastest_jitter_has_a_place_for_each_jump() -> None:
    last = math.nextafter(1, 0)
    draws = Draws.of(torch.full((1, NUM_DRAWS), last, dtype=torch.float64))
    assert follow(VERBS["Jitter"], draws, at(last)).x.item() == last
    assert draws.places.shape == (1, NUM_PLACES, 2)


def test_still_is_still() -> None:
    state = follow(VERBS["Stay still"], draw(5, 0), at(0, 0.4, 0.9))
    assert all((part == part[:, :1]).all() for part in parts(state).values())


# Ranges.


@settings(max_examples=50, deadline=None)
@given(
    share=st.floats(0, 1, exclude_max=True),
    time=st.floats(0, 1, exclude_max=True),
    verb=st.sampled_from(list(VERBS)),
)
def test_a_state_is_in_its_range_at_any_time(share: float, time: float, verb: str) -> None:
    state = follow(VERBS[verb], one(share), at(time))
    for name, part in parts(state).items():
        assert 0 <= part.item() < 1, name


def test_the_ink_is_15_to_30_pixels_high() -> None:
    assert ink_size(at(0, 0.5, 1)).tolist() == pytest.approx([15, math.sqrt(450), 30])
    assert (SMALLEST, LARGEST) == (15, 30)


def test_a_turned_digit_never_meets_itself_around_the_torus() -> None:
    """Half the diagonal of MNIST's 28 pixels at the largest size is below half the height."""
    assert LARGEST / 20 * 14 * math.sqrt(2) < HEIGHT / 2


def test_there_are_19_verbs_of_19_motions() -> None:
    assert len(VERBS) == len(set(VERBS.values())) == 19
