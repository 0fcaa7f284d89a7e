"""The three sets of a detection run: to train on, to measure the difficulty on, to evaluate on.

Shapes: C categories.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from common.errors import UserError
from data_prep import digit_scenes, lvis
from data_prep.lvis_format import Annotations, Lists, read_lvis
from detection.ap import GroundTruth
from detection.ap.inputs import encode_segmentation
from detection.data import DetectionData, images_on_disk, refuse_boxes_only
from detection.recipes import DetectionConfig

CONDITIONS = {"box": "bbox", "mask": "bbox+segm"}
"""The record's ``condition`` for each task: what is evaluated."""


@dataclass(frozen=True, eq=False)
class DetectionSets:
    """Annotations with their images; categories are the same in all three."""

    train: DetectionData
    difficulty: DetectionData
    val: DetectionData

    @property
    def num_classes(self) -> int:
        """C."""
        return self.train.annotations.num_categories

    @property
    def description(self) -> dict[str, Any]:
        """The record's ``split``; its counts are images that hold each category."""
        train, difficulty, val = (
            part.annotations for part in (self.train, self.difficulty, self.val)
        )
        present = train.image_count[train.image_count > 0]
        measurable = int((difficulty.image_count > 0).sum())
        return {
            "class_names": list(train.names),
            "train": train.image_count.tolist(),
            "difficulty": difficulty.image_count.tolist(),
            "test": val.image_count.tolist(),
            "imbalance": float(present.max() / present.min()),
            "digest": _digest(train, difficulty, val),
            "frequency": "".join(train.frequency),
            "notes": [
                f"Counts are images. The difficulty set measures {measurable} of "
                f"{self.num_classes} categories; the others keep difficulty 1.",
                # Where the file lies is no property of the split.
                *(note.replace(train.source, Path(train.source).name) for note in train.notes),
            ],
        }


def _digest(*parts: Annotations) -> str:
    """sha256 over the images of each part: equal for equal splits."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(np.sort(part.image_ids).astype("<i8").tobytes() + b"/")
    return digest.hexdigest()


Files = tuple[tuple[Path, Path, Path], Path]
"""Annotations to train on, to measure the difficulty on and to evaluate on; folder of images."""


def _digit_scenes(folder: Path | None, images: Path | None) -> Files:
    if images is not None:
        raise UserError("--images has no effect on digit-scenes; name their folder with --data.")
    found = digit_scenes.load_digit_scenes(folder)
    return (found.train, found.difficulty, found.val), found.folder


def _lvis(folder: Path | None, images: Path | None) -> Files:
    place = lvis.annotation_folder(folder)
    files = place / lvis.REST_FILE, place / lvis.DIFFICULTY_FILE, place / lvis.VAL_FILE
    if not files[1].exists():
        raise UserError(
            f"{files[1]} is missing: hold out images to measure the difficulty on with "
            "python -m data_prep.lvis split (see data_prep/README.md)."
        )
    return files, lvis.image_folder(images)


_FILES: Final[Mapping[str, Callable[[Path | None, Path | None], Files]]] = {
    "lvis-v0.5": _lvis,
    "digit-scenes": _digit_scenes,
}
"""Of each data set the files, by the folders of annotations and images; None: its usual place."""


def load_sets(
    config: DetectionConfig, folder: Path | None = None, images: Path | None = None
) -> DetectionSets:
    """The configured data set; every image is looked for, none is opened.

    Args:
        config: names the data set and the task.
        folder: of the annotation files, or of a rendered set; None: its usual place.
        images: folder of COCO's images; None: its usual place.

    Raises:
        UserError: when a file or an image is missing, or annotations cannot be used.
    """
    files, images = _FILES[config.dataset](folder, images)
    masks = config.task == "mask"
    train, difficulty, val = (read_lvis(file) for file in files)
    for part in (difficulty, val):
        if not np.array_equal(part.category_ids, train.category_ids):
            raise UserError(
                f"{part.source} has other categories than {train.source}; name files of one set."
            )
    if masks:
        refuse_boxes_only(val.as_given)
    return DetectionSets(
        *(
            DetectionData(part, images_on_disk(part, images), masks=masks, longest=config.max_size)
            for part in (train, _with_letters_of(train, difficulty), _with_letters_of(train, val))
        )
    )


def load_training_annotations(config: DetectionConfig, folder: Path | None = None) -> DetectionSets:
    """What a trained detector is made again from: its training annotations, as all three sets.

    No image is looked for.

    Args:
        config: names the data set.
        folder: of the annotation files, or of a rendered set; None: its usual place.

    Raises:
        UserError: the file is missing, or cannot be used.
    """
    (file, *_), _ = _FILES[config.dataset](folder, None)
    train = read_lvis(file)
    known = DetectionData(train, [file] * train.num_images)
    return DetectionSets(known, known, known)


def _with_letters_of(train: Annotations, part: Annotations) -> Annotations:
    """``part``, its categories named rare, common or frequent by the file of the training images.

    Only where its own file has no letters: counted from its images alone, they would be others.
    """
    if part.has_letters:
        return part
    return replace(part, frequency=train.frequency, has_letters=True)


def ground_truth(annotations: Annotations, *, masks: bool) -> GroundTruth:
    """What the evaluation compares detections with: the instances as the file gives them.

    Where it has no letters no category is rare, common or frequent.

    Args:
        annotations: of the evaluated images.
        masks: whether masks are compared, too.

    Raises:
        UserError: masks are wanted and an instance has none.
    """
    frequency = annotations.frequency if annotations.has_letters else [""] * len(annotations.names)
    annotations = annotations.as_given
    if masks:
        refuse_boxes_only(annotations)
    order = np.argsort(annotations.image_ids)
    rank_of = np.empty(len(order), np.int64)
    rank_of[order] = np.arange(len(order))
    sizes = np.stack([annotations.heights, annotations.widths], axis=1)
    encoded = None
    if masks:
        encoded = [
            encode_segmentation(
                annotations.segmentations.of(n), *(int(side) for side in sizes[image])
            )
            for n, image in enumerate(annotations.image)
        ]
    return GroundTruth(
        image_ids=annotations.image_ids[order],
        frequency=np.array(frequency, dtype=np.str_),
        image=rank_of[annotations.image],
        category=annotations.category,
        xywh=annotations.bboxes,
        area=annotations.areas,
        ignore=annotations.ignore,
        negative=_pairs(annotations.negative, rank_of),
        not_exhaustive=_pairs(annotations.not_exhaustive, rank_of),
        masks=encoded,
        image_sizes=sizes[order],
    )


def _pairs(lists: Lists, rank_of: np.ndarray) -> np.ndarray:
    """(., 2): image and category of each entry; images numbered in the order of their ids."""
    image = np.repeat(np.arange(len(lists.first) - 1), np.diff(lists.first))
    return np.stack([rank_of[image], lists.values], axis=1)
