"""How the command line speaks: results, faults of a file as one line, progress, and the rules for files and folders.

Results go to standard output; progress and faults to standard error. Not here: the verbs (`panglot.cli`).
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from panglot.inspect import Inspection
    from panglot.plan import Forecast, Way
    from panglot.tokenizers.base import Codes

BAD_INPUT = 2

STDOUT = "standard output"
"""Its name in a fault."""


class BadInput(Exception):
    """A fault of the command line or of a file: one line, with the remedy."""


class Log:
    """What a command tells about its files, as text or as JSON, and whether one of them failed."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self.failed = False

    @contextmanager
    def faults(self, file: Path) -> Iterator[None]:
        """Turn a fault of one file into a line on standard error, so that the next file can go on."""
        from panglot import CodesError, MediaError, TokenFileError
        from panglot.budget import BudgetError
        from panglot.convert import OptionError
        from panglot.tokenizers.base import WeightsError

        faults = (
            BadInput,
            MediaError,
            TokenFileError,
            CodesError,
            OptionError,
            BudgetError,
            WeightsError,
            OSError,
            MemoryError,
        )
        try:
            yield
        except BrokenPipeError:  # whoever read our output has seen enough: no fault of the file
            raise
        except faults as error:
            if getattr(error, "filename", None) == STDOUT:  # nor is this
                raise
            self.failed = True
            line = fault(file, error)
            print(f"panglot: {line}", file=sys.stderr)
            if self.as_json:
                self.object_line({"file": str(file), "error": line})

    def finish(self) -> None:
        if self.failed:
            raise typer.Exit(BAD_INPUT)

    def encoded(self, file: Path, codes: Codes, seconds: float, target: Path) -> None:
        from panglot import convert

        tokens, bits = codes.tokens(), codes.bits(convert.alphabets([codes.modality]))
        if self.as_json:
            counts = {"tokens": sum(tokens.values()), "tokens_per_alphabet": tokens, "bits": bits}
            facts = {"file": str(file), "modality": codes.modality, "output": str(target)}
            self.object_line({**facts, **counts, "seconds": round(seconds, 4)})
        else:
            total = f"{sum(tokens.values()):,} tokens, {bits:,} bits"
            print(f"{shown(file)} -> {shown(target)}  {codes.modality}, {total}, {seconds:.2f} s")

    def decoded(self, file: Path, targets: list[Path], parts: list[Codes], seconds: float) -> None:
        if self.as_json:
            outputs = [
                {"output": str(t), "modality": c.modality, "tokens": sum(c.tokens().values())}
                for t, c in zip(targets, parts, strict=True)
            ]
            self.object_line({"file": str(file), "outputs": outputs, "seconds": round(seconds, 4)})
        else:
            print(f"{shown(file)} -> {', '.join(map(shown, targets)) or 'nothing: it is empty'}  {seconds:.2f} s")

    def inspected(self, result: Inspection) -> None:
        if self.as_json:
            self.object_line(result.as_dict())
        else:
            print_table(result)

    def planned(self, found: list[Forecast], shares: list[Way], budget: int | None) -> None:
        from panglot import plan

        if self.as_json:
            for number, file in enumerate(found):
                share = {"share": shares[number].as_dict()} if shares else {}
                self.object_line(file.as_dict() | share)
            return
        for file in found:
            print_grid(*plan.grid(file))
        if shares and budget is not None:
            print_grid(*plan.split_grid(found, shares, budget))
        if found:
            print(*plan.basis(found), sep="\n")

    @staticmethod
    def object_line(value: dict[str, Any]) -> None:
        try:
            print(json.dumps(value, allow_nan=False), flush=True)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OSError(error.errno, error.strerror, STDOUT) from None


def print_table(result: Inspection) -> None:
    from panglot.report import columns, facts

    print_grid(f"{shown(result.path)}: {facts(result)}", *columns(result))


def print_grid(title: str, head: list[str], rows: list[list[str]]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(title), title_justify="left", title_style="bold")
    for number, name in enumerate(head):
        table.add_column(escape(shown(name)), justify="right" if number else "left")
    for row in rows:
        table.add_row(*(escape(shown(cell)) for cell in row))
    Console(width=None if sys.stdout.isatty() else 160).print(table)


@contextmanager
def progress(what: str) -> Iterator[Callable[[float], None]]:
    """A bar on standard error while the block runs, where that is a terminal; yields what moves it, 0 to 1."""
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn()
    with Progress(
        *columns,
        console=console,
        transient=True,
        redirect_stdout=False,  # or results would go to standard error
        redirect_stderr=False,
        disable=not console.is_terminal,
    ) as bar:
        task = bar.add_task(escape(what), total=1.0)
        yield lambda part: bar.update(task, completed=part)


def is_token_file(out: Path, files: list[Path]) -> bool:
    """Whether `out` names one token file (True) or a folder (False, made if missing)."""
    if str(out) == "-":
        raise BadInput("-: writing to standard output is not possible; name a file that ends in .pgt")
    if out.is_dir() or out.suffix != ".pgt":
        if out.suffix and not out.suffix[1:].isdigit() and not out.is_dir() and not out.name.startswith("."):
            raise BadInput(f"{shown(out)}: end it in .pgt for one token file, or name a folder for one token file each")
        make_folder(out)
        return False
    if not out.parent.is_dir():
        raise BadInput(f"{shown(out)}: the folder {shown(out.parent)} does not exist; make it first")
    for file in files:
        if out.exists() and file.exists() and os.path.samefile(out, file):
            raise BadInput(f"{shown(out)}: is also an input; choose another name for the output")
    return True


def make_folder(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise BadInput(f"{shown(folder)}: is a file; name a folder")
    folder.mkdir(parents=True, exist_ok=True)


def claim(target: Path, file: Path, taken: dict[Path, Path]) -> Path:
    """`target`, unless another file of this command was written there (`taken`), or it is the input itself."""
    if target in taken:
        if os.path.samefile(taken[target], file):
            raise BadInput(f"{shown(file)}: is named twice; name it once")
        raise BadInput(
            f"{shown(file)}: would overwrite {shown(target)} of {shown(taken[target])}; use another folder for it"
        )
    if target.exists() and os.path.samefile(target, file):
        raise BadInput(f"{shown(file)}: is where the output would go; choose another folder for it")
    return target


def check_input(file: Path, token_file: bool = False) -> None:
    """The mistakes with a name that deserve another answer than "cannot be read"."""
    if str(file) == "-":
        raise BadInput("-: standard input is not supported; write it to a file first and name that")
    if file.is_dir():
        raise BadInput(f"{shown(file)}: is a folder; name the files in it")
    if not token_file and file.suffix == ".pgt":
        raise BadInput(f"{shown(file)}: is a token file; `panglot decode` turns it back into media")


def fault(file: Path, error: BaseException) -> str:
    """One line that names the file and the fault."""
    if isinstance(error, OSError):
        name = error.filename if error.filename is not None else file
        return shown(f"{os.fsdecode(name)}: {_reason(error)}")
    if isinstance(error, MemoryError):
        return f"{shown(file)}: needs more memory than there is; use a smaller file"
    text = " ".join(str(error).split())
    return shown(text if str(file) in text else f"{file}: {text}")


def _reason(error: OSError) -> str:
    remedies = {
        "FileNotFoundError": "does not exist; check the name",
        "PermissionError": "permission denied; check who may read and write there",
    }
    full = "the disk is full; free space or choose another folder" if error.errno == 28 else None
    return remedies.get(type(error).__name__) or full or (error.strerror or str(error))


def shown(path: Path | str) -> str:
    """A name as it can be printed: no control characters, no bytes that are not text."""
    return "".join(c if c.isprintable() else "?" for c in str(path))
