"""Files in LVIS's layout as detectron2's registered data sets.

Shapes: C categories, I images.
"""

from functools import partial
from pathlib import Path
from typing import Any, Final

import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode
from detectron2.utils.file_io import PathManager
from torch import Tensor

from common.errors import UserError
from data_prep import digit_scenes, lvis
from data_prep.lvis_format import Annotations, read_lvis
from detection.ap.inputs import encode_segmentation
from detection.data import images_on_disk

LVIS_SETS: Final = {
    "cdb_lvis_v0.5_train_rest": lvis.REST_FILE,
    "cdb_lvis_v0.5_difficulty": lvis.DIFFICULTY_FILE,
    "cdb_lvis_v0.5_val": lvis.VAL_FILE,
}
"""Name and file; ``lvis_v0.5_train`` and ``lvis_v0.5_val`` are detectron2's own."""

Record = dict[str, Any]


def register_annotations(
    name: str, file: Path, images: Path, *, mask_format: str = "polygon"
) -> None:
    """Register any file in LVIS's layout; it is read when it is asked for.

    Category ids may have gaps, masks be polygons or run-length codes, images be named by
    ``file_name`` or ``coco_url``. detectron2's own ``register_lvis_instances`` works too, where ids
    are 1..C and masks polygons.

    Args:
        name: of the set; one that is registered already is registered anew.
        file: the annotations.
        images: folder of the images.
        mask_format: ``bitmask`` where masks are run-length codes; ``INPUT.MASK_FORMAT`` must agree.
    """
    if name in DatasetCatalog:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
    DatasetCatalog.register(name, partial(_load, name, file, images))
    MetadataCatalog.get(name).set(
        json_file=str(file),
        image_root=str(images),
        evaluator_type="lvis",
        mask_format=mask_format,
    )


def register_lvis_v05(folder: Path | None = None, images: Path | None = None) -> None:
    """Register :data:`LVIS_SETS`, as ``python -m data_prep.lvis split`` leaves them.

    Args:
        folder: of the annotation files; None: $CDB_LVIS, else data/lvis.
        images: folder of COCO's images; None: $CDB_COCO, else data/coco.
    """
    place = lvis.annotation_folder(folder)
    for name, file in LVIS_SETS.items():
        register_annotations(name, place / file, lvis.image_folder(images))


def register_digit_scenes(folder: Path | None = None) -> None:
    """Register ``digit_scenes_train``, ``digit_scenes_difficulty`` and ``digit_scenes_val``.

    Args:
        folder: of the rendered set; None: $CDB_DIGIT_SCENES, else data/digit-scenes.
    """
    place = digit_scenes.default_folder() if folder is None else folder
    for part, file in digit_scenes.FILES.items():
        register_annotations(f"digit_scenes_{part}", place / file, place, mask_format="bitmask")


def _load(name: str, file: Path, images: Path) -> list[Record]:
    """What the catalog gives for ``name``."""
    annotations = _read(name, file)
    records = dataset_dicts(annotations, images_on_disk(annotations, images))
    # Every process that loads the set says the same of it.
    MetadataCatalog.get(name).set(
        thing_classes=list(annotations.names),
        thing_dataset_id_to_contiguous_id={
            number: index for index, number in enumerate(annotations.category_ids.tolist())
        },
    )
    return records


def _read(name: str, file: Path) -> Annotations:
    if not file.is_file():
        raise UserError(
            f"{file}, the annotations of {name}, is missing; see data_prep/README.md, and name "
            f"another folder with {lvis.LVIS_VARIABLE}, {lvis.COCO_VARIABLE} or "
            f"{digit_scenes.FOLDER_VARIABLE}."
        )
    return read_lvis(file)


def dataset_dicts(annotations: Annotations, files: tuple[Path, ...]) -> list[Record]:
    """Annotations in detectron2's form: one record an image, by image id.

    Args:
        annotations: checked; category c is index c.
        files: of the images, (I,).
    """
    ids = annotations.category_ids
    records: list[Record] = [
        {
            "file_name": str(file),
            "image_id": number,
            "height": height,
            "width": width,
            "neg_category_ids": ids[annotations.negative.of(image)].tolist(),
            "not_exhaustive_category_ids": ids[annotations.not_exhaustive.of(image)].tolist(),
            "annotations": [],
        }
        for image, (file, number, height, width) in enumerate(
            zip(
                files,
                annotations.image_ids.tolist(),
                annotations.heights.tolist(),
                annotations.widths.tolist(),
                strict=True,
            )
        )
    ]
    for instance, image in enumerate(annotations.image.tolist()):
        records[image]["annotations"].append(_instance(annotations, instance, image))
    return sorted(records, key=lambda record: int(record["image_id"]))


def _instance(annotations: Annotations, instance: int, image: int) -> Record:
    record: Record = {
        "bbox": annotations.bboxes[instance].tolist(),
        "bbox_mode": BoxMode.XYWH_ABS,
        "category_id": int(annotations.category[instance]),
    }
    outline = annotations.segmentations.of(instance)
    if isinstance(outline, list):
        record["segmentation"] = [polygon.tolist() for polygon in outline]
    elif outline is not None:
        height, width = int(annotations.heights[image]), int(annotations.widths[image])
        record["segmentation"] = dict(encode_segmentation(outline, height, width))
    return record


def read_registered(name: str) -> Annotations:
    """The annotations of a registered set in LVIS's layout, detectron2's own ones included.

    Raises:
        UserError: when no such set is registered, or it is no file in LVIS's layout.
    """
    if name not in DatasetCatalog:
        raise UserError(
            f"the data set {name!r} is not registered; it must be one of detectron2's, of "
            f"{', '.join(LVIS_SETS)}, or of digit_scenes_train, _difficulty and _val."
        )
    file = MetadataCatalog.get(name).get("json_file")
    if file is None:
        raise UserError(f"the data set {name!r} has no annotation file in LVIS's layout.")
    return _read(name, Path(PathManager.get_local_path(str(file))))


def category_counts(name: str) -> tuple[Tensor, Tensor]:
    """Counts in a registered training set, by category index.

    Returns:
        Instances (C,), int64, and the share of the images with each category, (C,), float64.

    Raises:
        UserError: see :func:`read_registered`.
    """
    annotations = read_registered(name)
    share = annotations.image_count / annotations.num_images
    return torch.from_numpy(annotations.instance_count), torch.from_numpy(share)
