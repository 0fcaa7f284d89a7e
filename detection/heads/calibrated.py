"""Classification calibration: SimCal (Wang et al. 2020) and Calib (Wang et al. 2019).

A second classifier is trained on balanced batches beside the frozen detector, and scores the
categories that have few training instances. Calib is the same with a classifier of 2 new layers on
the features of the proposals, where SimCal goes on from the detector's own layers: a difference
of layers, which are the engine's; the loss, the batches and the scores below are those of both.

Shapes: R proposals, C categories; background is label C.
"""

import torch
from torch import Tensor

from detection.heads.base import (
    ClassificationHead,
    check_category_values,
    check_cpu,
    keep_at_most,
    step_draws,
)


def calibration_proposals(
    labels: Tensor,
    num_classes: int,
    generator: torch.Generator,
    drawn_for: Tensor | None = None,
) -> Tensor:
    """Proposals that the calibrated classifier learns from in one episode.

    All that lie on an instance of the category their image was drawn for, and as many random
    background ones, or all of these where there are fewer. The episode's images come from
    :func:`detection.samplers.draw_episodes`.

    Args:
        labels: shape (R,), 0..C; ground-truth boxes among the proposals, as engines add them.
        num_classes: C.
        generator: chooses the background; a CPU generator of the caller's own, of which one number
            is used up.
        drawn_for: the category for which each proposal's image was drawn, shape (R,); None: every
            foreground proposal is kept.

    Returns:
        Shape (R,), bool, on the device of ``labels``.

    Raises:
        ValueError: for a generator that is not on the CPU.
    """
    check_cpu(generator)
    kept = labels < num_classes
    if drawn_for is not None:
        kept = kept & (labels == drawn_for)
    draws = step_draws(generator, len(labels), 1).to(labels.device, non_blocking=True)
    background = (labels == num_classes)[:, None]
    return kept | keep_at_most(background, kept.sum()[None], draws)[:, 0]


class CalibratedHead(ClassificationHead):
    """Two heads side by side: the calibrated one scores the categories of few instances.

    The logits: those of ``original``, then those of ``calibrated``. The loss is ``calibrated``'s
    alone, for the detector is frozen; give it the proposals of :func:`calibration_proposals`. What
    it is divided by, also under ``torch.distributed``, is ``calibrated``'s to say.

    >>> from detection.heads.softmax import SoftmaxHead
    >>> head = CalibratedHead(SoftmaxHead(2), SoftmaxHead(2), torch.tensor([500, 3]))
    >>> head.probabilities(torch.tensor([[9.0, 0.0, 0.0, 0.0, 9.0, 0.0]]))  # sure of each
    tensor([[0.9998, 0.9998]])
    """

    few: Tensor

    def __init__(
        self,
        original: ClassificationHead,
        calibrated: ClassificationHead,
        instance_counts: Tensor,
        threshold: int = 100,
    ) -> None:
        """Divide the categories.

        Args:
            original: head of the detector as it was trained.
            calibrated: head of the second classifier.
            instance_counts: instances of each category in the training set, shape (C,), >= 0.
            threshold: categories of fewer instances take the calibrated scores.

        Raises:
            ValueError: for heads of different numbers of categories, another number of counts, or
                a negative one.
        """
        if original.num_classes != calibrated.num_classes:
            raise ValueError(
                f"the original head has {original.num_classes} categories and the calibrated one "
                f"{calibrated.num_classes}; they must have the same"
            )
        super().__init__(original.num_classes, original.num_logits + calibrated.num_logits)
        check_category_values(instance_counts, self.num_classes, "instance counts")
        self.original = original
        self.calibrated = calibrated
        self.register_buffer("few", instance_counts < threshold, persistent=False)

    def _split(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        at = self.original.num_logits
        return logits[:, :at], logits[:, at:]

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The calibrated head's loss; logits (R, L), labels (R,) -> 0-d."""
        return self.calibrated.loss(self._split(logits)[1], labels)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Scores of the categories from the head that is theirs, (R, C)."""
        original, calibrated = self._split(logits)
        return torch.where(
            self.few,
            self.calibrated.probabilities(calibrated),
            self.original.probabilities(original),
        )
