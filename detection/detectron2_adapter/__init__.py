"""The classification heads and class-difficulty balancing within detectron2.

detectron2 is optional: the package index has no build of it (see detection/README.md). Only this
module and :mod:`~detection.detectron2_adapter.train_net` can be imported without it.

- ``output_layers``: the class layer and box regressors, with a head's loss and scores;
- ``roi_heads``: RoI heads with these, registered as ``CdbROIHeads``;
- ``config``: their options in a yacs configuration, ``use_head`` for a LazyConfig;
- ``difficulty``: hooks that measure the difficulty and update the balancer;
- ``datasets``: files in LVIS's layout as registered data sets;
- ``evaluation``: LVIS AP by :mod:`detection.ap`;
- ``second_stage``: '-clc', and the class layer when first weights are loaded;
- ``trainer`` and ``train_net``: the training loops and the command.
"""

from common.errors import UserError


def require_detectron2() -> None:
    """Refuse to go on without a detectron2 that works with this PyTorch.

    Raises:
        UserError: when it, or its compiled part, cannot be imported.
    """
    try:
        import detectron2._C  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"detectron2 cannot be imported ({error}); build it from its source for this PyTorch "
            "as detection/README.md tells, or train with python -m detection.train."
        ) from error
