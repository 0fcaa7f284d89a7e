"""Hooks of detectron2's trainers that measure the difficulty and update the balancer.

Shapes: C categories. The balancer is a part of the model (see
:class:`~detection.detectron2_adapter.output_layers.HeadOutputLayers`), so its state is in the
checkpoints, if a hook here stands before the one that writes them.
"""

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from detectron2.engine import HookBase
from detectron2.evaluation import inference_on_dataset
from torch import Tensor, nn

from common.balancer import ClassDifficultyBalancer
from common.distributed import all_reduce_sum, broadcast_from_first
from common.errors import UserError
from detection.detectron2_adapter.evaluation import ApEvaluator
from detection.detectron2_adapter.output_layers import HeadOutputLayers
from detection.detectron2_adapter.roi_heads import output_layers, unwrapped
from detection.models import ProposalAccuracy

_logger = logging.getLogger("detectron2.cdb")


class DifficultyHook(HookBase, ABC):  # type: ignore[misc]  # detectron2 has no types
    """Measures each category's performance every so many iterations; the balancer follows.

    All ranks of detectron2's launcher register it alike; the first rank's numbers count.

    Attributes:
        period: iterations from one measurement to the next.
        seconds: that measuring took so far.
    """

    def __init__(self, period: int) -> None:
        """See above.

        Raises:
            UserError: for a period under 1.
        """
        if period < 1:
            raise UserError(f"the difficulty is measured every 1 iteration or more, not {period}.")
        self.period = period
        self.seconds = 0.0

    @property
    def layers(self) -> HeadOutputLayers:
        """The output layers of the trained model."""
        return output_layers(self.trainer.model)

    @property
    def balancer(self) -> ClassDifficultyBalancer:
        """The balancer of the trained model.

        Raises:
            UserError: when its method has none.
        """
        balancer = self.layers.balancer
        if balancer is None:
            raise UserError(
                "the difficulty is measured, but the head follows none; use CDB.METHOD cdb-w-ce or "
                "leave the hook out."
            )
        return balancer

    @abstractmethod
    def measure(self) -> Tensor:
        """Performance since the last measurement, (C,), in [0, 1], NaN where not measured."""

    def before_train(self) -> None:
        """Refuse a model without a balancer at once, not after a period."""
        assert self.balancer is not None

    def after_step(self) -> None:
        """Measure at the end of a period."""
        if (self.trainer.iter + 1) % self.period:
            return
        started = time.perf_counter()
        performance = broadcast_from_first(self.measure().to(self.balancer.difficulty))
        # A short period may have shown no category, which of AP only the first rank knows.
        if not bool(performance.isnan().all()):
            self.balancer.update(performance)
        taken = time.perf_counter() - started
        self.seconds += taken
        self._report(taken)

    def _report(self, taken: float) -> None:
        balancer = self.balancer
        values = {
            "cdb/tau": float(balancer.tau),
            "cdb/bias": float(balancer.bias),
            "cdb/mean_difficulty": float(balancer.difficulty.mean()),
            "cdb/measured": float(balancer.measured.sum()),
            "cdb/seconds": taken,
        }
        self.trainer.storage.put_scalars(**values, smoothing_hint=False)
        _logger.info(
            "difficulty of %d categories measured in %.1f s (%.1f s so far): tau %.3f, bias %.3f",
            values["cdb/measured"], taken, self.seconds, values["cdb/tau"], values["cdb/bias"],
        )  # fmt: skip


class ApDifficultyHook(DifficultyHook):
    """Performance is each category's AP of boxes on a registered set held out from training."""

    def __init__(self, period: int, dataset: str, loader: Iterable[list[dict[str, Any]]]) -> None:
        """See above.

        Args:
            period: in iterations.
            dataset: name of the registered difficulty set.
            loader: its images, shared among the ranks: of ``build_detection_test_loader``.
        """
        super().__init__(period)
        self._loader = loader
        self._evaluator = ApEvaluator(dataset, masks=False)

    def measure(self) -> Tensor:
        """AP per category, of all ranks' images; NaN throughout on other ranks than the first."""
        model = self.trainer.model
        with _without_masks(unwrapped(model)):
            inference_on_dataset(model, self._loader, self._evaluator)
        return torch.from_numpy(self._evaluator.category_ap(self.layers.num_classes))


@contextmanager
def _without_masks(model: nn.Module) -> Iterator[None]:
    """Detect boxes only: pasting 300 masks of an image takes longer than finding them."""
    roi_heads: Any = model.roi_heads
    masks = roi_heads.mask_on
    roi_heads.mask_on = False
    try:
        yield
    finally:
        roi_heads.mask_on = masks


class ProposalDifficultyHook(DifficultyHook):
    """Performance is the share of each category's proposals in training that is classified right.

    It costs no extra pass. The counts of all ranks are summed in every step, 16 bytes a category,
    so that they are the same on each: what the first rank saves resumes them all.
    """

    def __init__(self, period: int) -> None:
        """See :class:`DifficultyHook`."""
        super().__init__(period)
        self._counts: Tensor | None = None

    def before_train(self) -> None:
        """Let the output layers count."""
        super().before_train()
        device = self.balancer.difficulty.device
        layers = self.layers
        layers.proposal_accuracy = ProposalAccuracy(layers.num_classes, device)
        empty = layers.proposal_accuracy.state_dict()["counts"]
        self._counts = empty if self._counts is None else self._counts.to(empty)

    def after_step(self) -> None:
        """Sum the step's counts over the ranks; measure at the end of a period."""
        of_rank = self.layers.proposal_accuracy
        assert of_rank is not None
        assert self._counts is not None
        self._counts = self._counts + all_reduce_sum(of_rank.state_dict()["counts"])
        of_rank.reset()
        super().after_step()

    def measure(self) -> Tensor:
        """Accuracy per category; the counts start anew."""
        assert self._counts is not None
        correct, total = self._counts
        self._counts = torch.zeros_like(self._counts)
        accuracy: Tensor = correct / total  # 0 / 0 is NaN: not measured
        return accuracy

    def state_dict(self) -> dict[str, Tensor]:
        """The counts of the period under way."""
        return {} if self._counts is None else {"counts": self._counts.clone()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from :meth:`state_dict`."""
        self._counts = state["counts"].clone()


class GeneratorHook(HookBase):  # type: ignore[misc]  # detectron2 has no types
    """Keeps the state of a head's own generator (of bags) in the checkpoints."""

    def __init__(self, generator: torch.Generator) -> None:
        """``generator`` is the head's."""
        self._generator = generator

    def state_dict(self) -> dict[str, Tensor]:
        """The generator's state."""
        return {"generator": self._generator.get_state()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from :meth:`state_dict`."""
        self._generator.set_state(state["generator"].cpu())
