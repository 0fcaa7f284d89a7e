"""detectron2's two training loops, yacs and LazyConfig, with heads, balancing and second stages."""

import argparse
import pickle
from pathlib import Path
from typing import Any, TypeAlias

import torch
from detectron2 import model_zoo
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode, LazyConfig, get_cfg, instantiate
from detectron2.data import MetadataCatalog, build_detection_test_loader
from detectron2.engine import (
    AMPTrainer,
    DefaultTrainer,
    HookBase,
    SimpleTrainer,
    TrainerBase,
    create_ddp_model,
    default_setup,
    default_writers,
    hooks,
)
from detectron2.evaluation import inference_on_dataset, print_csv_format
from detectron2.utils import comm
from omegaconf import DictConfig
from torch import nn

from common.errors import UserError
from detection.detectron2_adapter.config import (
    add_cdb_config,
    check_config,
    follow_method,
    uses_balancer,
)
from detection.detectron2_adapter.datasets import register_digit_scenes, register_lvis_v05
from detection.detectron2_adapter.difficulty import (
    ApDifficultyHook,
    DifficultyHook,
    GeneratorHook,
    ProposalDifficultyHook,
)
from detection.detectron2_adapter.evaluation import ApEvaluator
from detection.detectron2_adapter.roi_heads import output_layers
from detection.detectron2_adapter.second_stage import first_weights, freeze_all_but_classifier
from detection.heads import BagsHead

Config: TypeAlias = CfgNode | DictConfig
Results: TypeAlias = dict[str, Any]

_UNREADABLE = (RuntimeError, ValueError, KeyError, EOFError, pickle.UnpicklingError)
_WRITING = (hooks.PeriodicCheckpointer, hooks.EvalHook, hooks.PeriodicWriter)


# Reading a configuration.


def read_config(file: str, options: list[str]) -> Config:
    """The configuration of a file with options that depart from it.

    The sets of :mod:`~detection.detectron2_adapter.datasets` are registered in their usual places.

    Args:
        file: a yacs file (.yaml) or a LazyConfig (.py), or the name of one of the model zoo.
        options: of the command line: KEY VALUE pairs for yacs, key=value for a LazyConfig.

    Raises:
        UserError: when there is no such file, or an option is wrong.
    """
    register_lvis_v05()
    register_digit_scenes()
    path = _config_file(file)
    try:
        return _read_lazy(path, options) if path.endswith(".py") else _read_yacs(path, options)
    except (KeyError, ValueError, AssertionError, AttributeError) as error:
        raise UserError(f"{file} with {options}: {error}; mend the option or the file.") from error


def _config_file(file: str) -> str:
    if Path(file).is_file():
        return file
    try:
        found: str = model_zoo.get_config_file(file)
    except RuntimeError as error:
        raise UserError(
            f"--config-file {file!r} is neither a file nor one of detectron2's model zoo; name for "
            "instance LVISv0.5-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml."
        ) from error
    return found


def _read_yacs(path: str, options: list[str]) -> CfgNode:
    cfg = get_cfg()
    add_cdb_config(cfg)
    cfg.merge_from_file(path)
    cfg.merge_from_list(options)
    follow_method(cfg, tuple(options[::2]))
    cfg.freeze()
    return cfg


def _read_lazy(path: str, options: list[str]) -> DictConfig:
    return LazyConfig.apply_overrides(LazyConfig.load(path), options)


def check(cfg: Config, processes: int) -> None:
    """Refuse what would fail later, before a process is started.

    Args:
        cfg: the configuration.
        processes: of all machines.

    Raises:
        UserError: naming the option.
    """
    if isinstance(cfg, DictConfig):
        device, weights = cfg.train.device, cfg.train.init_checkpoint
    else:
        check_config(cfg)
        device, weights = cfg.MODEL.DEVICE, cfg.MODEL.WEIGHTS
        _check_masks(cfg)
        if cfg.SOLVER.IMS_PER_BATCH % processes:
            raise UserError(
                f"SOLVER.IMS_PER_BATCH {cfg.SOLVER.IMS_PER_BATCH} cannot be shared by {processes} "
                "processes; make it a multiple of their number."
            )
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(
            f"there is no GPU for the device {device}; add MODEL.DEVICE cpu (train.device=cpu)."
        )
    if weights and "://" not in weights and not Path(weights).is_file():
        raise UserError(
            f"the first weights {weights} are missing; mend MODEL.WEIGHTS (train.init_checkpoint)."
        )


def _check_masks(cfg: CfgNode) -> None:
    """Refuse polygons where a registered set has run-length codes."""
    for name in cfg.DATASETS.TRAIN:
        wanted = MetadataCatalog.get(name).get("mask_format", cfg.INPUT.MASK_FORMAT)
        if cfg.MODEL.MASK_ON and wanted == "bitmask" != cfg.INPUT.MASK_FORMAT:
            raise UserError(
                f"the masks of {name} are run-length codes; add INPUT.MASK_FORMAT bitmask."
            )


# What both loops share.


def load_first(checkpointer: DetectionCheckpointer, weights: str, *, resume: bool) -> bool:
    """Resume, or load the weights that a training starts from.

    Args:
        checkpointer: of the model, and of the trainer if it is to be resumed.
        weights: file or address of the first weights; '': none.
        resume: go on from the last checkpoint, if there is one.

    Returns:
        Whether it was resumed.

    Raises:
        UserError: when a file cannot be read.
    """
    resumed = resume and checkpointer.has_checkpoint()
    try:
        if resumed:
            checkpointer.resume_or_load(weights, resume=True)
        else:
            with first_weights(checkpointer.model):
                checkpointer.resume_or_load(weights, resume=False)
    except _UNREADABLE as error:
        source = checkpointer.get_checkpoint_file() if resumed else weights
        raise UserError(
            f"{source} cannot be loaded ({error}); get it again, or name another with "
            "MODEL.WEIGHTS (train.init_checkpoint)."
        ) from error
    return resumed


def prepare(model: nn.Module) -> nn.Module:
    """Freeze what the head's method does not train; before the optimizer is made.

    Raises:
        UserError: when the model has no head of this project.
    """
    if output_layers(model).classifier_only:
        freeze_all_but_classifier(model)
    return model


def clip_whole_gradient(optimizer: torch.optim.Optimizer, norm: float) -> None:
    """Before each step scale the gradient of all parameters together to at most ``norm``.

    detectron2's own clipping takes each parameter by itself. 0 does nothing.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]

    def clip(*_: Any) -> None:
        torch.nn.utils.clip_grad_norm_(parameters, norm)

    if norm > 0:
        optimizer.register_step_pre_hook(clip)


def own_hooks(model: nn.Module, difficulty: DifficultyHook | None) -> list[HookBase]:
    """The hooks of the head's method, to be registered before those that write checkpoints.

    Raises:
        UserError: when the head follows the difficulty and nothing measures it.
    """
    layers = output_layers(model)
    if layers.balancer is not None and difficulty is None:
        raise UserError(
            "the head follows the difficulty, but nothing measures it; add a hook of "
            "detection.detectron2_adapter.difficulty as 'difficulty' to the configuration."
        )
    found: list[HookBase] = [] if difficulty is None else [difficulty]
    if isinstance(layers.head, BagsHead):
        found.append(GeneratorHook(layers.head.generator))
    return found


def train_or_explain(trainer: TrainerBase, start: int, last: int) -> None:
    """Train; a loss that is not finite becomes a sentence.

    Args:
        trainer: with its hooks.
        start: the first iteration.
        last: the number of iterations of the whole training.

    Raises:
        UserError: naming the iteration.
    """
    try:
        TrainerBase.train(trainer, start, last)
    except FloatingPointError as error:
        raise UserError(
            f"the training diverged at iteration {trainer.iter} "
            f"({str(error).splitlines()[0].rstrip('.!')}); checkpoints are kept: lower the "
            "learning rate (SOLVER.BASE_LR, optimizer.lr) and start again."
        ) from error


# yacs.


class Trainer(DefaultTrainer):  # type: ignore[misc]  # detectron2 has no types
    """detectron2's default trainer for a configuration with ``CDB.*``."""

    @classmethod
    def build_model(cls, cfg: CfgNode) -> nn.Module:
        """The model, frozen as its method asks."""
        return prepare(super().build_model(cfg))

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
        """detectron2's optimizer of what is trained, with the gradient clipped as a whole."""
        optimizer: torch.optim.Optimizer = super().build_optimizer(cfg, model)
        clip_whole_gradient(optimizer, cfg.CDB.CLIP_NORM)
        return optimizer

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> Any:
        """The training images.

        Raises:
            UserError: when they have other categories than the model.
        """
        loader = super().build_train_loader(cfg)
        for name in cfg.DATASETS.TRAIN:
            number = len(MetadataCatalog.get(name).thing_classes)
            if number != cfg.MODEL.ROI_HEADS.NUM_CLASSES:
                raise UserError(
                    f"{name} has {number} categories; set MODEL.ROI_HEADS.NUM_CLASSES to that, not "
                    f"to {cfg.MODEL.ROI_HEADS.NUM_CLASSES}."
                )
        return loader

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> ApEvaluator:
        """LVIS AP of boxes, and of masks where the model has them."""
        return ApEvaluator(dataset_name, masks=cfg.MODEL.MASK_ON)

    def build_hooks(self) -> list[HookBase]:
        """detectron2's hooks, and before those that write, the method's."""
        default: list[HookBase] = super().build_hooks()
        writing = (n for n, hook in enumerate(default) if isinstance(hook, _WRITING))
        at = next(writing, len(default))
        return [*default[:at], *own_hooks(self.model, self._difficulty_hook()), *default[at:]]

    def _difficulty_hook(self) -> DifficultyHook | None:
        options = self.cfg.CDB
        if not uses_balancer(options.METHOD):
            return None
        if options.DIFFICULTY == "proposals":
            return ProposalDifficultyHook(options.PERIOD)
        loader = build_detection_test_loader(self.cfg, options.DIFFICULTY_SET)
        return ApDifficultyHook(options.PERIOD, options.DIFFICULTY_SET, loader)

    def resume_or_load(self, resume: bool = True) -> None:
        """As detectron2's; see :func:`load_first` for first weights."""
        if load_first(self.checkpointer, self.cfg.MODEL.WEIGHTS, resume=resume):
            self.start_iter = self.iter + 1


def _run_yacs(cfg: CfgNode, args: argparse.Namespace) -> Results | None:
    if args.eval_only:
        model = Trainer.build_model(cfg)
        DetectionCheckpointer(model, cfg.OUTPUT_DIR).resume_or_load(
            cfg.MODEL.WEIGHTS, resume=args.resume
        )
        results: Results = Trainer.test(cfg, model)
        return results
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=args.resume)
    train_or_explain(trainer, trainer.start_iter, trainer.max_iter)
    return None


# LazyConfig.


def _evaluate_lazy(cfg: DictConfig, model: nn.Module) -> Results | None:
    if "evaluator" not in cfg.dataloader:
        return None
    results: Results = inference_on_dataset(
        model, instantiate(cfg.dataloader.test), instantiate(cfg.dataloader.evaluator)
    )
    print_csv_format(results)
    return results


def make_lazy_trainer(cfg: DictConfig) -> tuple[SimpleTrainer, DetectionCheckpointer]:
    """The trainer of a LazyConfig with all its hooks, and its checkpointer; nothing is loaded.

    Args:
        cfg: with ``model``, ``optimizer``, ``lr_multiplier``, ``dataloader`` and ``train`` as
            detectron2's own, and ``difficulty``, a hook, for a head that follows the difficulty.
            ``train.clip_norm``: see :func:`clip_whole_gradient`.

    Raises:
        UserError: when the model has no head of this project, or its difficulty is not measured.
    """
    model = prepare(instantiate(cfg.model).to(cfg.train.device))
    cfg.optimizer.params.model = model
    optimizer = instantiate(cfg.optimizer)
    clip_whole_gradient(optimizer, cfg.train.get("clip_norm", 0.0))
    loader = instantiate(cfg.dataloader.train)
    model = create_ddp_model(model, **cfg.train.get("ddp", {}))
    kind = AMPTrainer if cfg.train.amp.enabled else SimpleTrainer
    trainer = kind(model, loader, optimizer)
    checkpointer = DetectionCheckpointer(model, cfg.train.output_dir, trainer=trainer)
    difficulty = instantiate(cfg.difficulty) if "difficulty" in cfg else None
    first: list[HookBase] = [
        hooks.IterationTimer(),
        hooks.LRScheduler(scheduler=instantiate(cfg.lr_multiplier)),
        *own_hooks(model, difficulty),
    ]
    evaluating = hooks.EvalHook(cfg.train.eval_period, lambda: _evaluate_lazy(cfg, model))
    if not comm.is_main_process():
        trainer.register_hooks([*first, evaluating])
        return trainer, checkpointer
    writing = hooks.PeriodicCheckpointer(checkpointer, **cfg.train.checkpointer)
    writers = default_writers(cfg.train.output_dir, cfg.train.max_iter)
    shown = hooks.PeriodicWriter(writers, period=cfg.train.log_period)
    trainer.register_hooks([*first, writing, evaluating, shown])
    return trainer, checkpointer


def _run_lazy(cfg: DictConfig, args: argparse.Namespace) -> Results | None:
    if args.eval_only:
        model = instantiate(cfg.model).to(cfg.train.device)
        model = create_ddp_model(model, **cfg.train.get("ddp", {}))
        DetectionCheckpointer(model).load(cfg.train.init_checkpoint)
        return _evaluate_lazy(cfg, model)
    trainer, checkpointer = make_lazy_trainer(cfg)
    resumed = load_first(checkpointer, cfg.train.init_checkpoint, resume=args.resume)
    start = trainer.iter + 1 if resumed else 0
    train_or_explain(trainer, start, cfg.train.max_iter)
    return None


def run(args: argparse.Namespace) -> Results | None:
    """Train or evaluate as the command line says, in a process that detectron2 launched.

    Raises:
        UserError: for any mistake a user can mend.
    """
    cfg = read_config(args.config_file, args.opts)
    # detectron2 copies the file into its log.
    default_setup(
        cfg, argparse.Namespace(**vars(args) | {"config_file": _config_file(args.config_file)})
    )
    return _run_lazy(cfg, args) if isinstance(cfg, DictConfig) else _run_yacs(cfg, args)
