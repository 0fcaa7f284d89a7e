"""What is trained and what is only named: command lines, each with a name of its own.

In the words of a command {data} stands for the folder of the tiny data, {out} for that of the runs.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

Words = tuple[str, ...]
WHOLE: Final = "whole"
"""Ending of the file beside a set of the tiny data that is written to its end."""


@dataclass(frozen=True)
class Case:
    """One command.

    Attributes:
        name: TASK/RECIPE/METHOD, and what is special about it.
        words: of the command line, behind ``python -m TASK.train``.
        stop_after: steps of an optimizer after which the stopped run gets its signal; 0: the run is
            only named: its data is missing, so that it ends when its folder and configuration are
            there.
        ranks: processes.
        captured: with the stand-in for CUDA graphs.
    """

    name: str
    words: Words
    stop_after: int = 0
    ranks: int = 1
    captured: bool = False

    @property
    def task(self) -> str:
        """The package that trains."""
        return self.name.partition("/")[0]

    @property
    def data(self) -> list[str]:
        """The sets below {data} that it reads."""
        paths = [word.removeprefix("{data}/") for word in self.words if word.startswith("{data}")]
        return [path.partition("/")[0] for path in paths]


MNIST: Final = (
    "ce", "focal", "cfs", "cb", "eql", "l2rw", "balanced-softmax", "logit-adjustment",
    "logit-adjustment-post-hoc", "tau-normalisation", "mixup", "cdb-s", "cdb-w-fl", "cdb-w-ce",
)  # fmt: skip
CIFAR: Final = (
    "ce", "focal", "cfs", "cb", "eql", "l2rw", "meta-weight-net", "ldam-drw", "class-aware",
    "balanced-softmax", "logit-adjustment", "logit-adjustment-post-hoc", "tau-normalisation",
    "mixup", "cdb-s", "cdb-w-fl", "cdb-w-ce",
)  # fmt: skip
DECOUPLED: Final = ("class-aware", "balanced-softmax", "logit-adjustment", "cdb-w-ce", "cdb-s")
IMAGES: Final = (
    "ce", "focal", "cfs", "cb", "eql", "class-aware", "balanced-softmax", "logit-adjustment",
    "logit-adjustment-post-hoc", "tau-normalisation", "mixup", "cdb-s", "cdb-w-fl", "cdb-w-ce",
)  # fmt: skip
DETECTORS: Final = ("ce", "rfs", "eql", "cdb-s", "cdb-w-ce")
CLASSIFIERS: Final = ("focal", "lrw", "bags", "cdb-w-ce", "simcal", "calib")
VERBS: Final = (
    "ce",
    "focal",
    "cb",
    "cfs",
    "balanced-softmax",
    "logit-adjustment",
    "logit-adjustment-post-hoc",
    "tau-normalisation",
    "cdb-s",
    "cdb-w-ce",
)

CIFAR_TRAIN, CIFAR_TEST = 5, 1  # Images of a class of the tiny set.
_CIFAR_OPTIONS: Final = (
    "--epochs", "2", "--batch-size", "64", "--imbalance", "4", "--learning-rate", "0.05",
    "--warmup-epochs", "0.5", "--milestones", "1", "--lr-decay", "0.5", "--precision", "float32",
)  # fmt: skip
# All but four of a class of the tiny set, as the other recipes have it there.
_HELD_OUT: Final = ("--difficulty-per-class", str(CIFAR_TRAIN - 4))
_CIFAR_RECIPES: Final = ("cifar100-lt", "cifar100-lt-code", "cifar100-lt-short")
_IMAGE_RECIPES: Final = ("image-folder", "digit-images", "imagenet-lt")
METHODS: Final[Mapping[str, Mapping[str, Words]]] = {
    "classification": {
        "mnist-lt": MNIST,
        **dict.fromkeys(_CIFAR_RECIPES, CIFAR),
        **{f"{name}-{end}": DECOUPLED for name in _CIFAR_RECIPES for end in ("crt", "lws")},
        **dict.fromkeys(_IMAGE_RECIPES, IMAGES),
        **{f"{name}-oltr": ("oltr",) for name in _IMAGE_RECIPES},
    },
    "detection": {
        **dict.fromkeys(("lvis", "digit-scenes"), DETECTORS),
        **dict.fromkeys(("lvis-clc", "digit-scenes-clc"), CLASSIFIERS),
    },
    "video": dict.fromkeys(("motion-digits", "egtea-verbs"), VERBS),
}
"""Of each task the recipes, of each recipe the methods."""

COUNTS_FOR: Final[Mapping[str, Words]] = {
    **dict.fromkeys(
        ("tau", "tau_max", "tau_power", "eps", "normalize_weights", "difficulty",
         "difficulty_period"),
        ("cdb-s", "cdb-w-ce", "cdb-w-fl"),
    ),
    "focal_gamma": ("focal", "cdb-w-fl"),
    "hard_weight": ("focal", "cdb-w-fl"),
    "cfs_q": ("cfs",),
    "cb_beta": ("cb", "ldam-drw"),
    "la_tau": ("logit-adjustment", "logit-adjustment-post-hoc"),
    "norm_tau": ("tau-normalisation",),
    "mixup_alpha": ("mixup",),
    "eql_gamma": ("eql",),
    "eql_threshold": ("eql",),
    "l2rw_batch_size": ("l2rw",),
    "mwn_batch_size": ("meta-weight-net",),
    "mwn_learning_rate": ("meta-weight-net",),
    "ldam_margin": ("ldam-drw",),
    "ldam_scale": ("ldam-drw",),
    "drw_epoch": ("ldam-drw",),
    "rfs_threshold": ("rfs",),
    "focal_alpha": ("focal",),
    "bags_beta": ("bags",),
    "calibration_threshold": ("simcal", "calib"),
}  # fmt: skip
"""The methods that a setting counts for, where it does not count for all. Configurations are
compared by what counts: which other settings they name may change."""

_OWN: Final[Mapping[str, Words]] = {
    "focal": ("--focal-gamma", "2.5"),
    "cfs": ("--cfs-q", "0.7"),
    "cb": ("--cb-beta", "0.99"),
    "eql": ("--eql-threshold", "0.2"),
    **dict.fromkeys(("logit-adjustment", "logit-adjustment-post-hoc"), ("--la-tau", "1.5")),
    "tau-normalisation": ("--norm-tau", "0.7"),
    "mixup": ("--mixup-alpha", "0.4"),
    "l2rw": ("--l2rw-batch-size", "50"),
    "meta-weight-net": ("--mwn-batch-size", "50"),
    "ldam-drw": ("--ldam-scale", "20"),
    "oltr": ("--samples-per-class", "2"),
    "rfs": ("--rfs-threshold", "0.01"),
    "bags": ("--bags-beta", "4"),
    "simcal": ("--calibration-threshold", "50"),
    "calib": ("--calibration-threshold", "50"),
    **dict.fromkeys(("cdb-s", "cdb-w-ce", "cdb-w-fl"), ("--tau-max", "3")),
}
"""A setting of a method's own, which its run's name is to tell."""

_FITTING: Final[Mapping[str, Words]] = {
    "mnist-lt": ("--epochs", "2", "--batch-size", "32", "--imbalance", "2"),
    **{
        f"{name}{stage}": _CIFAR_OPTIONS + (_HELD_OUT if name == "cifar100-lt-code" else ())
        for name in _CIFAR_RECIPES
        for stage in ("", "-crt", "-lws")
    },
    **dict.fromkeys(
        (*_IMAGE_RECIPES, *(f"{name}-oltr" for name in _IMAGE_RECIPES)),
        ("--epochs", "2", "--batch-size", "10", "--learning-rate", "0.05", "--stored-side", "40",
         "--crop", "32", "--precision", "float32"),
    ),
    **dict.fromkeys(
        ("lvis", "lvis-clc", "digit-scenes", "digit-scenes-clc"),
        ("--backbone", "small", "--start", "random", "--min-size", "40", "--max-size", "64",
         "--epochs", "2", "--learning-rate", "0.04", "--warmup-steps", "3", "--milestones", "1"),
    ),
    **dict.fromkeys(
        ("motion-digits", "egtea-verbs"),
        ("--epochs", "2", "--batch-size", "6", "--learning-rate", "0.02", "--milestones", "1",
         "--frames", "4", "--frame-height", "16", "--frame-width", "20", "--crop", "16",
         "--flip", "0.5", "--model", "small-resnext", "--start", "random"),
    ),
}  # fmt: skip
"""What the run of a recipe needs to suit its tiny data."""

_DATA: Final[Mapping[str, Words]] = {
    "mnist-lt": (),
    **{name: ("--data", "{data}/cifar100") for name in _FITTING if name.startswith("cifar")},
    **{
        name: ("--data", "{data}/images")
        for name in _FITTING
        if name.startswith(_IMAGE_RECIPES)
    },
    **dict.fromkeys(("lvis", "lvis-clc"), ("--data", "{data}/lvis", "--images", "{data}/lvis")),
    **dict.fromkeys(("digit-scenes", "digit-scenes-clc"), ("--data", "{data}/scenes")),
    "motion-digits": ("--data", "{data}/verbs"),
    "egtea-verbs": ("--data", "{data}/verbs/clips"),
}  # fmt: skip


def _is_second(recipe: str) -> bool:
    return recipe.endswith(("-crt", "-lws", "-clc", "-oltr"))


def _of_method(recipe: str, method: str) -> Iterator[str]:
    """What a method needs to do something on so little data."""
    if recipe.startswith(("lvis", "digit-scenes")) and method not in ("simcal", "calib"):
        yield from ("--batch-size", "2")
    if _is_second(recipe):
        yield from ("--stage1-epochs", "2" if method == "oltr" else "1")
    if method == "oltr":
        yield from ("--milestones", "1")
    match method:
        case "l2rw":
            yield from ("--l2rw-batch-size", "20")
        case "meta-weight-net":
            yield from ("--mwn-batch-size", "20", "--mwn-learning-rate", "0.1")
        case "ldam-drw":
            yield from ("--cb-beta", "0.9")
        case "cb" if recipe not in ("motion-digits", "egtea-verbs"):
            yield from ("--cb-beta", "0.9")
        case "eql":
            shares = {"mnist-lt": "0.4"} | dict.fromkeys(_CIFAR_RECIPES, "0.01")
            yield from ("--eql-threshold", shares.get(recipe, "0.2"))
        case "rfs":
            yield from ("--rfs-threshold", "0.5")


def _stop(recipe: str, method: str) -> int:
    """In the second epoch, before its end; of an epoch of one step after the first."""
    if method in ("simcal", "calib"):
        return 1
    if recipe == "mnist-lt":
        return 15
    return 4 if recipe.startswith("cifar") else 6


def trained(task: str, recipe: str, method: str) -> Case:
    """A run of two epochs, whole, and stopped and gone on with."""
    fitting = (*_FITTING[recipe], *_of_method(recipe, method))
    words = (recipe, "--method", method, *fitting, *_DATA[recipe])
    return Case(f"{task}/{recipe}/{method}", words, _stop(recipe, method))


def _more(case: Case, what: str, *words: str, **changes: int | bool) -> Case:
    """A case that departs from another in words or in how it is carried out."""
    return replace(case, name=f"{case.name}/{what}", words=(*case.words, *words), **changes)  # type: ignore[arg-type]


def named(task: str, recipe: str, method: str) -> Case:
    """A recipe's values but for two, without its data."""
    changes = ("--epochs", "7", *_OWN.get(method, ("--momentum", "0.5")))
    nowhere = "{data}/lists" if recipe.startswith("image-folder") else "{out}/nowhere"
    words = (recipe, "--method", method, *changes, "--data", nowhere)
    return Case(f"{task}/{recipe}/{method}/named", words)


_PROPOSALS: Final = ("--difficulty", "proposals")
_LAWS: Final = (
    "linear", "polynomial", "logarithmic", "sigmoid-accv", "sigmoid-code", "1.5",
)  # fmt: skip


def _options() -> Iterator[Case]:
    """Settings of all methods that take another path through the program."""
    mnist = trained("classification", "mnist-lt", "cdb-w-ce")
    for law in _LAWS:
        yield _more(mnist, f"tau-{law}", "--tau", law)
    yield _more(mnist, "unscaled", "--no-normalize-weights")
    for reduction in ("weight-sum", "sum"):
        yield _more(mnist, reduction, "--loss-reduction", reduction)
    cifar = trained("classification", "cifar100-lt", "cdb-s")
    yield _more(cifar, "bfloat16", "--precision", "bfloat16", "--epochs", "1", stop_after=2)
    yield _more(cifar, "plain", "--augmentation", "none")
    images = trained("classification", "image-folder", "cdb-s")
    yield _more(images, "cache", "--cache", "{out}/cache", "--workers", "1")
    box = trained("detection", "lvis", "cdb-w-ce")
    yield _more(box, "proposals", *_PROPOSALS)
    for recipe, method in (("lvis", "cdb-s"), ("lvis-clc", "cdb-w-ce")):
        yield _more(trained("detection", recipe, method), "mask", "--task", "mask")
    verbs = trained("video", "motion-digits", "cdb-s")
    yield _more(verbs, "cache", "--cache", "{out}/cache")


_TRAINED: Final[Mapping[str, tuple[tuple[str, Words], ...]]] = {
    "classification": (
        ("mnist-lt", MNIST),
        ("cifar100-lt", CIFAR),
        ("cifar100-lt-crt", DECOUPLED),
        ("cifar100-lt-lws", DECOUPLED),
        ("cifar100-lt-code", ("ce", "cdb-w-ce")),
        ("cifar100-lt-code-crt", ("class-aware",)),
        ("cifar100-lt-code-lws", ("class-aware",)),
        ("cifar100-lt-short", ("ce", "cdb-w-ce")),
        ("cifar100-lt-short-crt", ("class-aware",)),
        ("cifar100-lt-short-lws", ("cdb-s",)),
        ("image-folder", IMAGES),
        ("digit-images", ("ce", "cdb-s")),
        ("imagenet-lt", ("ce", "cdb-s")),
        *((f"{name}-oltr", ("oltr",)) for name in _IMAGE_RECIPES),
    ),
    "detection": (
        ("lvis", DETECTORS),
        ("lvis-clc", CLASSIFIERS),
        ("digit-scenes", ("ce", "cdb-w-ce")),
        ("digit-scenes-clc", ("cdb-w-ce",)),
    ),
    "video": (("motion-digits", VERBS), ("egtea-verbs", ("ce", "cdb-s"))),
}
"""What is trained: every recipe, and every method of one recipe of each kind. The recipes of a kind
differ in their values alone, which are named for all methods."""

_CAPTURED: Final = (
    *(("cifar100-lt", method) for method in (
        "ce", "eql", "l2rw", "meta-weight-net", "ldam-drw", "logit-adjustment", "cdb-s",
        "cdb-w-fl")),
    ("cifar100-lt-crt", "cdb-s"),
    ("cifar100-lt-lws", "cdb-w-ce"),
)  # fmt: skip
_IN_TWO: Final[Mapping[str, tuple[tuple[str, Words], ...]]] = {
    "classification": (
        ("mnist-lt", ("ce", "l2rw", "logit-adjustment", "cdb-s", "cdb-w-ce")),
        ("cifar100-lt",
         ("ce", "focal", "eql", "l2rw", "meta-weight-net", "ldam-drw", "class-aware", "cdb-w-ce")),
        ("cifar100-lt-crt", ("cdb-s",)),
        ("image-folder", ("cdb-s",)),
        ("image-folder-oltr", ("oltr",)),
    ),
    "detection": (
        ("lvis", ("ce", "rfs", "eql", "cdb-s", "cdb-w-ce")),
        ("lvis-clc", ("focal", "bags", "cdb-w-ce", "simcal", "calib")),
    ),
    "video": (("motion-digits", ("ce", "cb", "cdb-s", "cdb-w-ce")),),
}  # fmt: skip


def _runs(of_tasks: Mapping[str, Iterable[tuple[str, Words]]]) -> Iterator[tuple[str, str, str]]:
    """Task, recipe and method of each."""
    for task, recipes in of_tasks.items():
        for recipe, methods in recipes:
            for method in methods:
                yield task, recipe, method


def _captured() -> Iterator[Case]:
    """A recording takes three steps before it and is one itself: stopped after its first use."""
    for recipe, method in _CAPTURED:
        run = trained("classification", recipe, method)
        yield _more(run, "captured", captured=True, stop_after=4)


def _in_two_processes() -> Iterator[Case]:
    for run in _runs(_IN_TWO):
        yield _more(trained(*run), "two", ranks=2)
    box = _more(trained("detection", "lvis", "cdb-w-ce"), "proposals", *_PROPOSALS)
    yield _more(box, "two", ranks=2)


def all_cases() -> list[Case]:
    """Every case, those of a task together."""
    recipes = {task: of_task.items() for task, of_task in METHODS.items()}
    found = [named(*run) for run in _runs(recipes)]
    found += [trained(*run) for run in _runs(_TRAINED)]
    found += [*_options(), *_captured(), *_in_two_processes()]
    return sorted(found, key=lambda case: case.task)
