"""Random numbers: each use owns a generator derived from (seed, name); nobody reseeds globally."""

import hashlib

import torch
from torch import Tensor


def stream_seed(seed: int, name: str) -> int:
    """A 63-bit seed that depends on ``seed`` and ``name`` only, on every machine."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def check_generator(generator: object) -> None:
    """Refuse to draw from the global random numbers, which others move.

    Raises:
        TypeError: for anything but a generator.
    """
    if not isinstance(generator, torch.Generator):
        raise TypeError(
            f"generator must be a torch.Generator of its own, not {generator!r}; give "
            "torch.Generator().manual_seed(0), with the same seed on every rank"
        )


class Streams:
    """The named generators of one run.

    >>> streams = Streams(seed=0)
    >>> streams["sampler"] is streams["sampler"], streams["sampler"] is streams["model"]
    (True, False)
    """

    def __init__(self, seed: int) -> None:
        """Derive every generator from ``seed``, an integer >= 0."""
        self.seed = seed
        self._generators: dict[str, torch.Generator] = {}

    def __getitem__(self, name: str) -> torch.Generator:
        """The CPU generator called ``name``, made when first asked for."""
        if name not in self._generators:
            seed = stream_seed(self.seed, name)
            self._generators[name] = torch.Generator().manual_seed(seed)
        return self._generators[name]

    def state_dict(self) -> dict[str, Tensor]:
        """The state of every generator used so far."""
        return {name: generator.get_state() for name, generator in self._generators.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from :meth:`state_dict`."""
        for name, generator_state in state.items():
            self[name].set_state(generator_state)
