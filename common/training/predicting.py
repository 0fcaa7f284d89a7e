"""What the tasks' ``predict`` commands share: class names, files, those passed over, tables.

Shapes: B files of a batch, C classes, K of them that are told of a file.
"""

import csv
import io
import json
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeAlias, TypeVar

import torch
import tyro
from torch import Tensor, nn

from common.errors import UserError
from common.files import write_atomically
from common.terminal import printable
from common.training.record import read_record

Epoch: TypeAlias = Literal["last", "best"]
"""Whose weights a finished run of a classifier keeps."""
Device: TypeAlias = Literal["auto", "cpu", "cuda"]
EXIT_PASSED_OVER: Final = 3
EXIT_CODES: Final = (
    "Exit code: 0 where every file was read; 2 where nothing is predicted, and one sentence says "
    f"why; {EXIT_PASSED_OVER} where files that cannot be read were named on standard error and "
    "passed over."
)
"""For ``--help``."""
Row: TypeAlias = tuple[Path, int, str, str]
"""Of a classifier's table: a file, the rank of a class (1: the most likely), its name, its
probability."""
Item = TypeVar("Item")


def finished_record(folder: Path, task: str) -> dict[str, Any]:
    """The record of a finished run.

    Args:
        folder: the run's.
        task: that it must be a run of; its schema is registered.

    Raises:
        UserError: it is no run, has not finished, is another task's, or its record is damaged.
    """
    path = folder / "record.json"
    if not (folder / "config.json").exists():
        raise UserError(
            f"{folder} is not the folder of a run (it has no config.json); name one such as "
            "runs/GROUP/RUN."
        )
    if not path.exists():
        raise UserError(f"{path} is not there: the run has not finished; start its command again.")
    found = _task_of(path)
    if found not in (None, task):
        raise UserError(
            f"{folder} is a run of {found}, not of {task}; use python -m {found}.predict."
        )
    return read_record(path)


def class_names_of(folder: Path, task: str) -> tuple[str, ...]:
    """The class names of a finished run, (C,), by label.

    Raises:
        UserError: as :func:`finished_record`.
    """
    return tuple(finished_record(folder, task)["split"]["class_names"])


def refuse_several_runs() -> None:
    """Refuse the command line if a star on it has become several runs, of which one is meant.

    Raises:
        UserError: it says which of them have finished.
    """
    runs = [word for word in sys.argv[1:] if (Path(word) / "config.json").is_file()]
    if len(runs) > 1:
        ended = [word for word in runs if (Path(word) / "record.json").is_file()]
        raise UserError(
            f"{len(runs)} runs are named, of which {len(ended)} "
            f"{'has' if len(ended) == 1 else 'have'} finished{': ' if ended else ''}"
            f"{', '.join(ended)}; name one."
        )


def _task_of(path: Path) -> str | None:
    """The ``task`` of a record; None where it is no record, of which more is said on reading it."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    task = content.get("task") if isinstance(content, dict) else None
    return task if isinstance(task, str) else None


def find_files(source: Path, endings: Sequence[str], kind: str) -> list[Path]:
    """The file ``source``, or the files below the folder ``source``, sorted by path.

    Args:
        source: a file of any name, or a folder, in which hidden files and folders are left out.
        endings: of the names that count in a folder, in small letters.
        kind: what they are, for messages.

    Raises:
        UserError: it is not there, or is a folder without such files.
    """
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise UserError(f"{source} is not there; name a file or a folder of {kind}.")
    found = sorted(
        path
        for path in source.rglob("*")
        if path.name.lower().endswith(tuple(endings))
        and not _is_hidden(path.relative_to(source))
        and not path.is_dir()
    )
    if not found:
        raise UserError(
            f"{source} holds no {kind} (names that end with {', '.join(endings)}); name another "
            "folder, or a file."
        )
    return found


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def refuse_unwritable(option: str, path: Path | None, suffix: str = "") -> None:
    """Refuse a file that could not be written, before anything is done for it.

    Args:
        option: whose the file is.
        path: of the file; None: there is to be none.
        suffix: what its name must end with.

    Raises:
        UserError: naming the option, and the folder that is not there or in the file's place.
    """
    if path is None:
        return
    if not path.parent.is_dir():
        raise UserError(f"{option} {path}: there is no folder {path.parent}; make it first.")
    if path.is_dir():
        raise UserError(f"{option} {path} is a folder; name a file, there or elsewhere.")
    if not path.name.endswith(suffix):
        raise UserError(f"{option} {path}: the file's name must end with {suffix}; add that.")


class Readable:
    """The files that can be read, with what is read; the others are named and counted."""

    def __init__(self, files: Sequence[Path]) -> None:
        """``files``: at least one."""
        self.files, self.passed_over = files, 0

    def read(self, read: Callable[[Path], Item]) -> Iterator[tuple[Path, Item]]:
        """Each file and its item, in turn.

        Args:
            read: makes the item, or raises a UserError, which is printed.

        Raises:
            UserError: not one file can be read.
        """
        for path in self.files:
            try:
                item = read(path)
            except UserError as error:
                self.passed_over += 1
                print(printable(f"passed over: {error}"), file=sys.stderr)
                continue
            yield path, item
        if self.passed_over == len(self.files):
            raise UserError(f"not one of the files can be read ({len(self.files)}); name others.")

    def exit(self) -> None:
        """End the program as :data:`EXIT_CODES` says, if a file was passed over."""
        if self.passed_over:
            print(
                f"{self.passed_over} of {len(self.files)} files were passed over", file=sys.stderr
            )
            sys.exit(EXIT_PASSED_OVER)


def in_batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Lists of ``size`` items in order; the last may be shorter.

    >>> list(in_batches("abc", 2))
    [['a', 'b'], ['c']]
    """
    batch: list[Item] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A CSV file in UTF-8, all or nothing; names are in it as the file system has them.

    Raises:
        UserError: there is no room or no permission.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    write_atomically(path, text.getvalue().encode(errors="surrogateescape"))


# Classifiers.


class TrainedClassifier(nn.Module, ABC):
    """A finished run's network, with what makes its inputs and the names of its classes.

    Attributes:
        class_names: (C,), by label.
    """

    def __init__(self, network: nn.Module, class_names: tuple[str, ...]) -> None:
        """In evaluation mode."""
        super().__init__()
        self.network, self.class_names = network, class_names
        self.eval()

    @abstractmethod
    def preprocess(self, item: Any) -> Tensor:
        """The input of one file; ``torch.stack`` makes a batch of several.

        Raises:
            UserError: it cannot be read.
        """


@dataclass(frozen=True, kw_only=True)
class RankingArguments:
    """How files are told the most likely classes of."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """The run's folder, such as runs/GROUP/RUN."""
    csv: Path | None = None
    """Write a table to this file: path, rank (1 is the most likely), class, probability."""
    top: int | None = None
    """Classes that are told of each file; None: 5, or all if there are fewer."""
    epoch: Epoch = "last"
    """Whose weights: of the last epoch, or of the best on the difficulty set."""
    device: Device = "auto"
    """auto: cuda if there is one."""
    batch_size: int = 32
    """Files a pass."""

    def check(self) -> None:
        """Refuse what makes no sense, before anything is read.

        Raises:
            UserError: naming the option.
        """
        if self.batch_size < 1:
            raise UserError(f"--batch-size must be at least 1, not {self.batch_size}.")
        refuse_unwritable("--csv", self.csv)

    def classes_told(self, num_classes: int) -> int:
        """K.

        Raises:
            UserError: ``top`` is not in 1..C.
        """
        if self.top is None:
            return min(_TOLD, num_classes)
        if not 1 <= self.top <= num_classes:
            raise UserError(
                f"--top {self.top} must be at least 1 and at most {num_classes}, the number of "
                "classes."
            )
        return self.top


_TOLD: Final = 5
_TABLE: Final = ("path", "rank", "class", "probability")


@torch.inference_mode()
def rank_classes(
    model: TrainedClassifier,
    files: Sequence[Path],
    arguments: RankingArguments,
    device: torch.device,
    also: Callable[[Sequence[Row]], None] | None = None,
) -> None:
    """Print the most likely classes of every file that can be read, and write them as a table.

    Args:
        model: of a finished run.
        files: at least one.
        arguments: how.
        device: of the passes.
        also: gets the table's rows when all are there.

    Raises:
        UserError: ``top`` is out of range, or not one file can be read.
        SystemExit: some could not be read.
    """
    top = arguments.classes_told(len(model.class_names))
    readable = Readable(files)
    rows: list[Row] = []
    model.to(device)
    for batch in in_batches(readable.read(model.preprocess), arguments.batch_size):
        paths, inputs = zip(*batch, strict=True)
        probabilities = model(torch.stack(inputs).to(device)).softmax(dim=1)
        for path, values in zip(paths, probabilities, strict=True):
            rows += _ranked(path, values, model.class_names, top)
    if arguments.csv:
        write_table(arguments.csv, _TABLE, rows)
    if also:
        also(rows)
    readable.exit()


def _ranked(path: Path, probabilities: Tensor, names: Sequence[str], top: int) -> list[Row]:
    """Print the line of one file; give its rows of the table."""
    values, labels = (found.tolist() for found in probabilities.topk(top))
    pairs = [(names[label], value) for label, value in zip(labels, values, strict=True)]
    print(printable(f"{path}: {', '.join(f'{name} {value:.4f}' for name, value in pairs)}"))
    # Nine digits give a float32 back to the bit.
    return [(path, rank, name, f"{value:.9g}") for rank, (name, value) in enumerate(pairs, 1)]
