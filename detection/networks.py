"""The detector of a configuration: its head, its first weights, its second stage.

Shapes: C categories.
"""

from pathlib import Path

from torch import Tensor

from common.errors import UserError
from common.streams import Streams
from common.training.folder import ForeignWeightsError
from common.training.published_weights import read_state
from detection.heads import ClassificationHead, SoftmaxHead
from detection.methods import METHODS
from detection.methods.base import DetectionMethod
from detection.models import Rcnn, build_rcnn, freeze_all_but_classifier
from detection.recipes import DetectionConfig
from detection.sets import DetectionSets

Weights = dict[str, Tensor]


def _refuse_other_weights(config: DetectionConfig, published: Path) -> None:
    """Refuse a file of other weights than ``start`` and the record say."""
    of_classifier = "conv1.weight" in read_state(published, "name another file with --weights")
    kind = "imagenet" if of_classifier else "coco"
    if kind != config.start:
        raise UserError(
            f"{published} has the weights of --start {kind}, not of --start {config.start}; name "
            "another file with --weights, or change --start."
        )


def _detector(
    config: DetectionConfig,
    head: ClassificationHead,
    num_classes: int,
    streams: Streams,
    published: Path | None,
) -> Rcnn:
    model = build_rcnn(
        num_classes,
        head,
        generator=streams["model"],
        masks=config.task == "mask",
        backbone=config.backbone,
        max_size=config.max_size,
        detections_per_image=config.detections,
        score_threshold=config.score_threshold,
        weights=published,
    )
    if published is not None:
        _refuse_other_weights(config, published)
    # One of them at random in training, the last one in evaluation.
    model.transform.min_size = config.min_size
    return model


def make_model(
    config: DetectionConfig,
    method: DetectionMethod,
    *,
    published: Path | None = None,
    first_stage: Weights | None = None,
) -> Rcnn:
    """The detector at the first step of its run, on the CPU.

    Args:
        config: resolved.
        method: gives its head, knows its categories, and has the run's generators.
        published: file of the weights that a first stage starts from; None: random.
        first_stage: weights of the first stage, for a second one.

    Raises:
        UserError: when the weights cannot be used.
    """
    model: Rcnn = config.make_network(method, published, first_stage)
    return model


def make_detector(config: DetectionConfig, method: DetectionMethod, published: Path | None) -> Rcnn:
    """A whole detector, from published or random weights; see :func:`make_model`."""
    return _detector(config, method.head(), method.sets.num_classes, method.streams, published)


def make_second_stage(
    config: DetectionConfig, method: DetectionMethod, first_stage: Weights
) -> Rcnn:
    """The first stage's detector with a new class layer, alone trained; see :func:`make_model`."""
    num_classes = method.sets.num_classes
    head = method.head()
    model = _detector(config, SoftmaxHead(num_classes), num_classes, method.streams, None)
    try:
        model.load_state_dict(first_stage)
    except RuntimeError as error:
        raise ForeignWeightsError(f"the weights are another network's: {error}.") from error
    method.add_classifier(model, head)
    freeze_all_but_classifier(model)
    return model


def make_trained_model(config: DetectionConfig, sets: DetectionSets, weights: Weights) -> Rcnn:
    """The detector of a finished run, for inference.

    Raises:
        UserError: when the weights are another network's.
    """
    streams = Streams(config.seed)
    first: Weights | None = None
    stage1 = config.stage1_config()
    if stage1 is not None:
        first = make_model(stage1, METHODS[stage1.method](stage1, sets, streams)).state_dict()
    model = make_model(config, METHODS[config.method](config, sets, streams), first_stage=first)
    _load(model, weights)
    return model


def _load(model: Rcnn, weights: Weights) -> None:
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(
            "the run's weights are those of another network; move its folder elsewhere and train "
            "the run again."
        ) from error
