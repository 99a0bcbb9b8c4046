"""The `panglot` command: encode, decode, inspect, demo.

Thin verbs over `panglot.convert`, `panglot.inspect` and `panglot.report`, which are imported when a command runs, so
that `panglot --help` stays fast. What this module adds is manners: faults of a file are one line on standard error
that names it, the other files go on, and the exit code is 2; Ctrl-C ends with 130. Results go to standard output,
progress to standard error, and only if that is a terminal.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from panglot import __version__

if TYPE_CHECKING:
    from panglot.inspect import Inspection
    from panglot.tokenizers.base import Codes

BAD_INPUT = 2
INTERRUPTED = 130
DEMO = ("photo.jpg", "voice.ogg", "music.ogg", "video.mp4", "text.txt")

app = typer.Typer(
    name="panglot",
    help="Text, images, sound and video as one stream of tokens, and back.",
    add_completion=False,
    pretty_exceptions_enable=False,
)

Files = Annotated[list[Path], typer.Argument(metavar="FILE...", help="Text, pictures, sound, video: any format.")]
Stride = Annotated[int | None, typer.Option(help="Stop the image pyramid at this stride: 32, 16 or 8 (finest).")]
Depth = Annotated[int | None, typer.Option(help="Codes a frame of sound, 1 to all.")]
Fps = Annotated[float | None, typer.Option(help="At most so many pictures a second of video.")]
Effort = Annotated[int, typer.Option(help="Rounds of search for better codes of pictures: slower, +0.3 dB for 2.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object a file on standard output, nothing else there.")]


class BadInput(Exception):
    """A fault of the command line or of a file: one line, with the remedy."""


@app.command()
def encode(
    files: Files,
    out: Annotated[Path, typer.Option("-o", "--out", metavar="OUT.pgt|DIR/", help="Token file, or folder for many.")],
    stride: Stride = None,
    depth: Depth = None,
    fps: Fps = None,
    effort: Effort = 0,
    as_json: Json = False,
) -> None:
    """Turn files into tokens. Several files into one OUT.pgt are one message; into DIR/ they get a token file each."""
    from panglot import convert

    together = _is_token_file(out, files)
    options = convert.Options(stride, depth, fps, effort)
    log = Log(as_json)
    done: list[tuple[Path, Codes, float]] = []
    taken: dict[Path, Path] = {}
    for file in files:
        with log.faults(file):
            _check_input(file)
            target = out if together else _claim(out / f"{file.stem}.pgt", file, taken)
            start = perf_counter()
            with progress(f"encode {_shown(file)}") as tell:
                codes = convert.encode_file(file, options, tell)
            done.append((file, codes, perf_counter() - start))
            if not together:
                convert.write_tokens(target, codes)
                log.encoded(*done[-1], target)
    if together and not log.failed:
        with log.faults(out):
            convert.write_tokens(out, [codes for _, codes, _ in done])
            for entry in done:
                log.encoded(*entry, out)
    elif together:
        print(f"panglot: {_shown(out)}: not written, because of the fault above", file=sys.stderr)
    log.finish()


@app.command()
def decode(
    files: Annotated[list[Path], typer.Argument(metavar="FILE.pgt...", help="Token files.")],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="Folder for the media.")],
    form: Annotated[
        str | None,
        typer.Option(
            "--format", metavar="NAME", help="png, jpg, webp; wav, flac, ogg; mp4; txt. Else png, wav, mp4, txt."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Turn tokens back into files: NAME.png, NAME.wav, NAME.mp4 or NAME.txt, numbered where a message has several."""
    from panglot import convert

    if out.suffix and not out.is_dir():
        raise BadInput(f"{_shown(out)}: -o names a folder; choose the kind of file with --format")
    _make_folder(out)
    log = Log(as_json)
    taken: dict[Path, Path] = {}
    for file in files:
        with log.faults(file):
            _check_input(file, token_file=True)
            start = perf_counter()
            parts = convert.read_tokens(file)
            suffixes = [convert.output_format(part, form) for part in parts]
            numbers = [f"-{i}" for i in range(1, len(parts) + 1)] if len(parts) > 1 else [""]
            names = [f"{file.stem}{number}{suffix}" for number, suffix in zip(numbers, suffixes, strict=False)]
            targets = [_claim(out / name, file, taken) for name in names]
            for part, target in zip(parts, targets, strict=True):
                with progress(f"decode {_shown(target)}") as tell:
                    convert.decode_file(part, target, tell)
            log.decoded(file, targets, parts, perf_counter() - start)
    log.finish()


@app.command()
def inspect(
    files: Files,
    report: Annotated[Path | None, typer.Option(metavar="DIR", help="Write a page to look at and listen to.")] = None,
    stride: Stride = None,
    depth: Depth = None,
    fps: Fps = None,
    effort: Effort = 0,
    as_json: Json = False,
) -> None:
    """Show what files become at every level: tokens, bits, ratios, fidelity after decoding, time."""
    from panglot import convert

    options = convert.Options(stride, depth, fps, effort)
    log = Log(as_json)
    if report is None:
        _inspect_all(files, options, None, log)
    else:
        from panglot.report import PAGE, staged, write

        with staged(report) as work:
            found = _inspect_all(files, options, work, log)
            if found:
                write(found, work)
        if found:
            print(f"The page is {_shown(report / PAGE)}", file=sys.stderr if as_json else sys.stdout)
    log.finish()


@app.command()
def count(
    files: Files,
    models: Annotated[str | None, typer.Option("--for", metavar="MODEL,...", help="Models, or all.")] = None,
    price: Annotated[list[str] | None, typer.Option(metavar="MODEL=DOLLARS", help="For a million tokens.")] = None,
    sources: Annotated[bool, typer.Option("--sources", help="Addresses and notes of the formulas too.")] = False,
    as_json: Json = False,
) -> None:
    """Tell what files cost as tokens of other models, by published formulas, and of panglot. Nothing is decoded."""
    from panglot import charges

    try:
        wanted = charges.chosen(charges.USUAL if models is None else models)
        prices = charges.prices(price or (), wanted)
    except charges.ChargeError as error:
        raise BadInput(_shown(str(error))) from None
    log, found = Log(as_json), []
    for file in files:
        with log.faults(file):
            _check_input(file)
            found.append(charges.count(file, wanted))
            if as_json:
                log._object(found[-1].as_dict(prices, sources))
    if found and not as_json:
        _print_grid("tokens", *charges.grid(found, wanted, prices))
        print(*charges.sources(wanted, [f.info.modality for f in found], sources), sep="\n")
    log.finish()


@app.command()
def demo(
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="Folder for tokens, media and page.")] = Path(
        "panglot-demo"
    ),
    as_json: Json = False,
) -> None:
    """Encode and decode a photo, a voice, a piece of music, a video and a text that the package ships, and show it."""
    from importlib import resources

    from panglot import convert
    from panglot.report import PAGE, staged, write

    log = Log(as_json)
    with resources.as_file(resources.files("panglot") / "assets" / "demo") as assets, staged(out) as work:
        files = [assets / name for name in DEMO]
        for file in files:
            tokens = work / f"{file.stem}.pgt"
            with progress(f"encode and decode {file.name}"):
                convert.write_tokens(tokens, convert.encode_file(file, convert.Options()))
                for codes in convert.read_tokens(tokens):
                    convert.decode_file(codes, work / (file.stem + convert.output_format(codes, None)))
        found = _inspect_all(files, convert.Options(), work, log)
        write(found, work, "panglot demo")
        (work / "ATTRIBUTION.md").write_bytes((assets / "ATTRIBUTION.md").read_bytes())
    if not as_json:
        print(f"Tokens (.pgt) and what they decode to are in {_shown(out)}.")
        print(f"To see and hear it, open {_shown((out / PAGE).resolve())}")
    log.finish()


def _inspect_all(files: list[Path], options: Any, work: Path | None, log: Log) -> list[Inspection]:
    from panglot import inspect as inspecting

    found: list[Inspection] = []
    for number, file in enumerate(files, 1):
        with log.faults(file):
            _check_input(file)
            folder = None
            if work is not None:
                from panglot.report import media_folder

                folder = media_folder(work, number, file)
            with progress(_shown(file)) as tell:
                result = inspecting.inspect(file, options, folder, lambda level, part, tell=tell: tell(part))
            found.append(result)
            log.inspected(result)
    return found


class Log:
    """What a command tells about its files, as text or as JSON, and whether one of them failed."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self.failed = False

    @contextmanager
    def faults(self, file: Path) -> Iterator[None]:
        """Turn a fault of one file into a line on standard error, so that the next file can go on."""
        from panglot import CodesError, MediaError, TokenFileError
        from panglot.convert import OptionError
        from panglot.tokenizers.base import WeightsError

        faults = (BadInput, MediaError, TokenFileError, CodesError, OptionError, WeightsError, OSError, MemoryError)
        try:
            yield
        except BrokenPipeError:  # whoever read our output has seen enough: no fault of the file
            raise
        except faults as error:
            self.failed = True
            line = _fault(file, error)
            print(f"panglot: {line}", file=sys.stderr)
            if self.as_json:
                self._object({"file": str(file), "error": line})

    def finish(self) -> None:
        if self.failed:
            raise typer.Exit(BAD_INPUT)

    def encoded(self, file: Path, codes: Codes, seconds: float, target: Path) -> None:
        from panglot import convert

        tokens, bits = codes.tokens(), codes.bits(convert.alphabets([codes.modality]))
        if self.as_json:
            counts = {"tokens": sum(tokens.values()), "tokens_per_alphabet": tokens, "bits": bits}
            facts = {"file": str(file), "modality": codes.modality, "output": str(target)}
            self._object({**facts, **counts, "seconds": round(seconds, 4)})
        else:
            total = f"{sum(tokens.values()):,} tokens, {bits:,} bits"
            print(f"{_shown(file)} -> {_shown(target)}  {codes.modality}, {total}, {seconds:.2f} s")

    def decoded(self, file: Path, targets: list[Path], parts: list[Codes], seconds: float) -> None:
        if self.as_json:
            outputs = [
                {"output": str(t), "modality": c.modality, "tokens": sum(c.tokens().values())}
                for t, c in zip(targets, parts, strict=True)
            ]
            self._object({"file": str(file), "outputs": outputs, "seconds": round(seconds, 4)})
        else:
            print(f"{_shown(file)} -> {', '.join(map(_shown, targets)) or 'nothing: it is empty'}  {seconds:.2f} s")

    def inspected(self, result: Inspection) -> None:
        if self.as_json:
            self._object(result.as_dict())
        else:
            _print_table(result)

    @staticmethod
    def _object(value: dict[str, Any]) -> None:
        print(json.dumps(value, allow_nan=False), flush=True)


def _print_table(result: Inspection) -> None:
    from panglot.report import columns, facts

    _print_grid(f"{_shown(result.path)}: {facts(result)}", *columns(result))


def _print_grid(title: str, head: list[str], rows: list[list[str]]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(title), title_justify="left", title_style="bold")
    for number, name in enumerate(head):
        table.add_column(escape(_shown(name)), justify="right" if number else "left")
    for row in rows:
        table.add_row(*(escape(_shown(cell)) for cell in row))
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


def _is_token_file(out: Path, files: list[Path]) -> bool:
    """Whether `out` names one token file (True) or a folder (False, made if missing)."""
    if str(out) == "-":
        raise BadInput("-: writing to standard output is not possible; name a file that ends in .pgt")
    if out.is_dir() or out.suffix != ".pgt":
        if out.suffix and not out.is_dir() and not out.name.startswith("."):
            raise BadInput(
                f"{_shown(out)}: end it in .pgt for one token file, or name a folder for one token file each"
            )
        _make_folder(out)
        return False
    if not out.parent.is_dir():
        raise BadInput(f"{_shown(out)}: the folder {_shown(out.parent)} does not exist; make it first")
    for file in files:
        if out.exists() and file.exists() and os.path.samefile(out, file):
            raise BadInput(f"{_shown(out)}: is also an input; choose another name for the output")
    return True


def _make_folder(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise BadInput(f"{_shown(folder)}: is a file; name a folder")
    folder.mkdir(parents=True, exist_ok=True)


def _claim(target: Path, file: Path, taken: dict[Path, Path]) -> Path:
    """`target`, unless another file of this command was written there, or it is the input itself."""
    if target in taken:
        raise BadInput(
            f"{_shown(file)}: would overwrite {_shown(target)} of {_shown(taken[target])}; use another folder for it"
        )
    if target.exists() and os.path.samefile(target, file):
        raise BadInput(f"{_shown(file)}: is where the output would go; choose another folder for it")
    taken[target] = file
    return target


def _check_input(file: Path, token_file: bool = False) -> None:
    """The mistakes with a name that deserve another answer than "cannot be read"."""
    if str(file) == "-":
        raise BadInput("-: standard input is not supported; write it to a file first and name that")
    if file.is_dir():
        raise BadInput(f"{_shown(file)}: is a folder; name the files in it")
    if not token_file and file.suffix == ".pgt":
        raise BadInput(f"{_shown(file)}: is a token file; `panglot decode` turns it back into media")


def _fault(file: Path, error: BaseException) -> str:
    """One line that names the file and the fault."""
    if isinstance(error, OSError):
        name = error.filename if error.filename is not None else file
        return _shown(f"{os.fsdecode(name)}: {_reason(error)}")
    if isinstance(error, MemoryError):
        return f"{_shown(file)}: needs more memory than there is; use a smaller file"
    text = " ".join(str(error).split())
    return _shown(text if str(file) in text else f"{file}: {text}")


def _reason(error: OSError) -> str:
    remedies = {
        "FileNotFoundError": "does not exist; check the name",
        "PermissionError": "permission denied; check who may read and write there",
    }
    full = "the disk is full; free space or choose another folder" if error.errno == 28 else None
    return remedies.get(type(error).__name__) or full or (error.strerror or str(error))


def _shown(path: Path | str) -> str:
    """A name as it can be printed: no control characters, no bytes that are not text."""
    return "".join(c if c.isprintable() else "?" for c in str(path))


def _version(wanted: bool) -> None:
    if wanted:
        print(f"panglot {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Text, images, sound and video as one stream of tokens, and back."""


def run(args: list[str]) -> int:
    """Run one command line and return its exit code. All faults end here as one line on standard error."""
    try:
        return app(args or ["--help"], prog_name="panglot", standalone_mode=False) or 0
    except typer.TyperException as error:
        message = error.format_message() if hasattr(error, "format_message") else str(error)  # type: ignore[attr-defined]
        print(f"panglot: {_shown(' '.join(message.split()))} (see panglot --help)", file=sys.stderr)
    except BadInput as error:
        print(f"panglot: {error}", file=sys.stderr)
    except OSError as error:
        print(f"panglot: {_fault(Path('output'), error)}", file=sys.stderr)
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    return BAD_INPUT


def main() -> NoReturn:
    """Entry point of the `panglot` command."""

    def stop(number: int, frame: object) -> NoReturn:
        raise SystemExit(128 + number)  # so that half-written files are removed on the way out

    signal.signal(signal.SIGTERM, stop)
    code = run(sys.argv[1:])
    if code == INTERRUPTED:
        print("panglot: interrupted; nothing half-written is left", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
