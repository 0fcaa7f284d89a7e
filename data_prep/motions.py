"""19 ways a digit can move, as pure functions of time: what a clip of motion digits shows.

A single frame tells nothing about the motion. The state of a digit is its place (x, y), its angle
and its size. For each motion and at each moment of time

    x is uniform on [0, WIDTH), y on [0, HEIGHT), the angle on [0, 2π), the logarithm of the size
    between those of SMALLEST and LARGEST, and the four are independent,

because each motion only adds a function of time, drawn independently, to one uniform start on a
circle: the picture is a torus (what leaves on the right comes in on the left), angles are a circle,
and a size that has grown to the largest begins again at the smallest. A fold of such a circle
(pulsing) is uniform too. Only the change between frames differs.

Speeds are per clip, whatever its length and frame rate. Two of 10 frames, one drawn from each tenth
of a clip of at least SHORTEST frames, are less than 0.2 + 1 / SHORTEST of the clip apart. In that
time a slide covers less than half the height, a turn less than half a circle and a size less
than half its range, so that the direction can be told; over the clip each motion goes far enough.

A mirror image swaps left and right, clockwise and anticlockwise: train without flips.

Shapes: N clips, F moments of time. Angles are clockwise as seen on the screen (y points down).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

WIDTH, HEIGHT = 80, 64
"""The torus, in pixels."""
SMALLEST, LARGEST = 15.0, 30.0
"""Height of the digit's ink, in pixels."""
SHORTEST, LONGEST = 24, 60
"""Frames of a clip."""

# Lowest and highest, per clip.
SLIDE = (50.0, 85.0)  # pixels
CIRCLES = (0.9, 1.3)
SWINGS = (1.0, 1.4)
SPINS = (0.7, 1.2)
GROWTHS = (1.0, 1.5)  # times from the smallest to the largest size
PULSES = (0.9, 1.3)
JUMPS = (7.0, 11.0)
# Radius of a circle, and of a swing (half its way), in pixels: a diameter is below half the height.
RADIUS = (11.0, 14.0)

NUM_PLACES = math.floor(JUMPS[1]) + 2
NUM_DRAWS = 7 + 2 * NUM_PLACES


@dataclass(frozen=True, eq=False)
class Draws:
    """What chance gives a clip, whatever its motion; all uniform in [0, 1) and independent.

    Attributes:
        x: place at the start, as a share of the width, (N, 1), as are the next six.
        y: place at the start, as a share of the height.
        angle: at the start, in turns.
        size: at the start, as a share of the range of log sizes.
        phase: where in its round a circle, a swing or a hold begins, in rounds.
        speed: between the motion's lowest and highest.
        reach: radius of a circle or a swing, between the lowest and the highest.
        places: the places a jittering digit jumps to, (N, NUM_PLACES, 2): x, y as shares.
    """

    x: Tensor
    y: Tensor
    angle: Tensor
    size: Tensor
    phase: Tensor
    speed: Tensor
    reach: Tensor
    places: Tensor

    @classmethod
    def of(cls, numbers: Tensor) -> "Draws":
        """Name the numbers of each clip, (N, NUM_DRAWS), uniform in [0, 1)."""
        x, y, angle, size, phase, speed, reach = numbers[:, :7, None].unbind(1)
        places = numbers[:, 7:].reshape(len(numbers), NUM_PLACES, 2)
        return cls(x, y, angle, size, phase, speed, reach, places)


@dataclass(frozen=True, eq=False)
class State:
    """Where the digits are; all (N, F).

    Attributes:
        x: centre, in widths of the picture from the left edge.
        y: centre, in heights from the upper edge.
        angle: clockwise, in turns.
        size: share of the range of log sizes.
    """

    x: Tensor
    y: Tensor
    angle: Tensor
    size: Tensor


Motion = Callable[[Draws, Tensor], State]
"""State at the given times, (F,) in clips from the start; not yet wrapped into its range."""


def still(draws: Draws, time: Tensor) -> State:
    """Nothing changes."""
    zero = torch.zeros_like(time)
    return State(draws.x + zero, draws.y + zero, draws.angle + zero, draws.size + zero)


def slide(right: int, down: int) -> Motion:
    """Straight on with constant speed, in one of 8 directions.

    Args:
        right: 1 to the right, -1 to the left, 0 neither.
        down: 1 down, -1 up, 0 neither.
    """

    def motion(draws: Draws, time: Tensor) -> State:
        way = _between(SLIDE, draws.speed) * time / math.hypot(right, down)
        return _moved(still(draws, time), right * way, down * way)

    return motion


def circle(sign: int) -> Motion:
    """Round a fixed point, upright as it was; sign 1 clockwise, -1 anticlockwise."""

    def motion(draws: Draws, time: Tensor) -> State:
        turns = draws.phase + sign * _between(CIRCLES, draws.speed) * time
        radius = _between(RADIUS, draws.reach)
        right = radius * torch.cos(math.tau * turns)
        return _moved(still(draws, time), right, radius * torch.sin(math.tau * turns))

    return motion


def swing(right: int, down: int) -> Motion:
    """To and fro (a sine) about a fixed point: (1, 0) horizontally, (0, 1) vertically."""

    def motion(draws: Draws, time: Tensor) -> State:
        rounds = draws.phase + _between(SWINGS, draws.speed) * time
        way = _between(RADIUS, draws.reach) * torch.sin(math.tau * rounds)
        return _moved(still(draws, time), right * way, down * way)

    return motion


def spin(sign: int) -> Motion:
    """About its own centre; sign 1 clockwise, -1 anticlockwise."""

    def motion(draws: Draws, time: Tensor) -> State:
        start = still(draws, time)
        return replace(start, angle=start.angle + sign * _between(SPINS, draws.speed) * time)

    return motion


def grow(sign: int) -> Motion:
    """Sign 1: grows to the largest size and begins again at the smallest; -1: shrinks."""

    def motion(draws: Draws, time: Tensor) -> State:
        start = still(draws, time)
        return replace(start, size=start.size + sign * _between(GROWTHS, draws.speed) * time)

    return motion


def pulse(draws: Draws, time: Tensor) -> State:
    """Grows and shrinks by turns, without a jump."""
    start = still(draws, time)
    rounds = start.size + _between(PULSES, draws.speed) * time
    return replace(start, size=_folded(rounds))


def jitter(draws: Draws, time: Tensor) -> State:
    """Jumps to another place, independent of the last, every few frames."""
    jump = torch.floor(draws.phase + _between(JUMPS, draws.speed) * time).long()
    places = torch.take_along_dim(draws.places, jump[:, :, None], dim=1)
    return replace(still(draws, time), x=places[:, :, 0], y=places[:, :, 1])


VERBS: dict[str, Motion] = {
    "Slide right": slide(1, 0),
    "Circle clockwise": circle(1),
    "Slide right and up": slide(1, -1),
    "Pulse": pulse,
    "Swing vertically": swing(0, 1),
    "Stay still": still,
    "Slide left and up": slide(-1, -1),
    "Grow": grow(1),
    "Slide down": slide(0, 1),
    "Spin anticlockwise": spin(-1),
    "Slide left": slide(-1, 0),
    "Jitter": jitter,
    "Slide up": slide(0, -1),
    "Slide right and down": slide(1, 1),
    "Swing horizontally": swing(1, 0),
    "Slide left and down": slide(-1, 1),
    "Circle anticlockwise": circle(-1),
    "Shrink": grow(-1),
    "Spin clockwise": spin(1),
}
"""The motions in the order of their labels, which is the order of EGTEA's verbs.

Chosen by hand, so that the number of clips alone does not make a class hard: the head (EGTEA's
Take, Put, Open, Cut, Inspect/Read) has four kinds of motion (slides, a circle, pulsing, none), a
slide may be frequent, middling or rare; and of the two circles, the two spins, growing and
shrinking, sliding right and left, one is frequent and the other, which differs in its direction
only, is rare.
"""


def follow(motion: Motion, draws: Draws, time: Tensor) -> State:
    """State of each clip at each time, wrapped into [0, 1).

    Args:
        motion: one of ``VERBS.values()``.
        draws: what chance gives each of N clips.
        time: (F,) float64, in clips from the start, [0, 1).
    """
    state = motion(draws, time)
    return State(*(_wrapped(part) for part in (state.x, state.y, state.angle, state.size)))


def ink_size(size: Tensor) -> Tensor:
    """Height of the ink in pixels, SMALLEST to LARGEST, of a share of the range of log sizes."""
    return SMALLEST * (LARGEST / SMALLEST) ** size


def _between(limits: tuple[float, float], share: Tensor) -> Tensor:
    return limits[0] + (limits[1] - limits[0]) * share


def _moved(state: State, right: Tensor, down: Tensor) -> State:
    """Moved by pixels."""
    return replace(state, x=state.x + right / WIDTH, y=state.y + down / HEIGHT)


def _folded(rounds: Tensor) -> Tensor:
    """0 to 1 and back again in each round; just below 1, which would be wrapped to 0."""
    return (1 - (2 * _wrapped(rounds) - 1).abs()).clamp(max=1 - 1e-9)


def _wrapped(value: Tensor) -> Tensor:
    """Into [0, 1); a tiny negative number would be rounded to 1."""
    wrapped = value - torch.floor(value)
    return torch.where(wrapped < 1, wrapped, torch.zeros_like(wrapped))
