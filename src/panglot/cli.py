"""The `panglot` command.

Thin verbs over `panglot.convert`, `panglot.inspect` and `panglot.report`, which are imported when a command runs, so
that `panglot --help` stays fast. What this module adds is manners: faults of a file are one line on standard error
that names it, the other files go on, and the exit code is 2; Ctrl-C ends with 130. Results go to standard output,
progress to standard error, and only if that is a terminal.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from panglot import __version__, cli_generate, cli_model
from panglot._terminal import (
    BAD_INPUT,
    BadInput,
    Log,
    check_input,
    claim,
    fault,
    is_token_file,
    make_folder,
    print_grid,
    progress,
    shown,
)

if TYPE_CHECKING:
    from panglot.inspect import Inspection

INTERRUPTED = 130
DEMO = ("photo.jpg", "voice.ogg", "music.ogg", "video.mp4", "text.txt")

app = typer.Typer(
    name="panglot",
    help="Text, images, sound and video as one stream of tokens, and back.",
    add_completion=False,
    pretty_exceptions_enable=False,
)

Files = Annotated[list[Path], typer.Argument(metavar="FILE...", help="Text, pictures, sound, video: any format.")]
Stride = Annotated[
    int | None, typer.Option(help="Stop at this stride, 32, 16 or 8; by default 8 for pictures, 16 for video.")
]
Depth = Annotated[int | None, typer.Option(help="Codes a block of sound (80 ms), 1 to 10.")]
Fps = Annotated[float | None, typer.Option(help="At most so many pictures a second of video.")]
Effort = Annotated[int, typer.Option(help="Rounds of search for better codes of pictures: slower, +0.3 dB for 2.")]
Tokens = Annotated[int | None, typer.Option(help="At most so many tokens: for all files of one OUT.pgt, or for each.")]
Psnr = Annotated[float | None, typer.Option(help="Pictures and video of at least so many dB, as cheap as can be.")]
Fidelity = Annotated[str | None, typer.Option(help="low, medium or high: how near to all detail, as cheap as can be.")]
Region = Annotated[str | None, typer.Option("--focus", metavar="X,Y,W,H", help="Spend the tokens of a picture here.")]
Exact = Annotated[bool, typer.Option("--exact", help="With a budget: measure what each block gains; slower, better.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object a file on standard output, nothing else there.")]


@app.command()
def encode(
    files: Files,
    out: Annotated[Path, typer.Option("-o", "--out", metavar="OUT.pgt|DIR/", help="Token file, or folder for many.")],
    stride: Stride = None,
    depth: Depth = None,
    fps: Fps = None,
    effort: Effort = 0,
    tokens: Tokens = None,
    psnr: Psnr = None,
    fidelity: Fidelity = None,
    focus: Region = None,
    exact: Exact = False,
    as_json: Json = False,
) -> None:
    """Turn files into tokens. Several files into one OUT.pgt are one message; into DIR/ they get a token file each."""
    from panglot import convert

    together = is_token_file(out, files)
    options = _options(stride, depth, fps, effort, _wish(tokens, psnr, fidelity, focus, exact))
    log = Log(as_json)
    if together:
        _encode_message(files, out, options, log)
        return
    taken: dict[Path, Path] = {}
    for file in files:
        with log.faults(file):
            check_input(file)
            target = claim(out / f"{file.stem}.pgt", file, taken)
            start = perf_counter()
            with progress(f"encode {shown(file)}") as tell:
                codes = convert.encode_file(file, options, tell)
            convert.write_tokens(target, codes)
            taken[target] = file
            log.encoded(file, codes, perf_counter() - start, target)
    log.finish()


def _encode_message(files: list[Path], out: Path, options: Any, log: Log) -> None:
    """Several files as one message, into one token file or into none."""
    from panglot import convert

    done: list[tuple[Path, Any, float]] = []
    for file in files:
        with log.faults(file):
            check_input(file)
            start = perf_counter()
            with progress(f"encode {shown(file)}") as tell:
                found = convert.opened(file, options) if options.wish else convert.encode_file(file, options, tell)
            done.append((file, found, perf_counter() - start))
    if log.failed:
        print(f"panglot: {shown(out)}: not written, because of the fault above", file=sys.stderr)
    else:
        with log.faults(out):
            if options.wish:
                done = _share(done, options.wish)
            convert.write_tokens(out, [codes for _, codes, _ in done])
            for entry in done:
                log.encoded(*entry, out)
    log.finish()


def _share(opened: list[tuple[Path, Any, float]], wish: Any) -> list[tuple[Path, Any, float]]:
    """The codes of opened files under one wish, instead of the media. A fault of one of them names its file."""
    from panglot import convert
    from panglot.budget import BudgetError

    start = perf_counter()
    try:
        codes = convert.encode_message([medium for _, medium, _ in opened], wish)
    except BudgetError as error:
        if error.medium is None:
            raise
        raise BudgetError(f"{opened[error.medium][0]}: {error}") from None
    seconds = (perf_counter() - start) / len(opened)
    return [(file, c, seconds) for (file, _, _), c in zip(opened, codes, strict=True)]


def _options(stride: int | None, depth: int | None, fps: float | None, effort: int, wish: Any = None) -> Any:
    from panglot import convert

    try:
        return convert.Options(stride, depth, fps, effort, wish)
    except convert.OptionError as error:
        raise BadInput(str(error)) from None


def _wish(tokens: int | None, psnr: float | None, fidelity: str | None, focus: str | None, exact: bool) -> Any:
    """The budget that the options name, or None. Raises BadInput."""
    from panglot.budget import BudgetError, Wish
    from panglot.detail import Focus

    if (tokens, psnr, fidelity, focus) == (None,) * 4:
        if exact:
            raise BadInput("--exact goes with a budget: add --tokens, --psnr, --fidelity or --focus")
        return None
    try:
        return Wish(tokens, psnr, fidelity, Focus.parse(focus) if focus is not None else None, exact)
    except BudgetError as error:
        raise BadInput(str(error)) from None


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
        raise BadInput(f"{shown(out)}: -o names a folder; choose the kind of file with --format")
    make_folder(out)
    log = Log(as_json)
    taken: dict[Path, Path] = {}
    for file in files:
        with log.faults(file):
            check_input(file, token_file=True)
            start = perf_counter()
            parts = convert.read_tokens(file)
            suffixes = [convert.output_format(part, form) for part in parts]
            numbers = [f"-{i}" for i in range(1, len(parts) + 1)] if len(parts) > 1 else [""]
            names = [f"{file.stem}{number}{suffix}" for number, suffix in zip(numbers, suffixes, strict=False)]
            targets = [claim(out / name, file, taken) for name in names]
            for part, target in zip(parts, targets, strict=True):
                with progress(f"decode {shown(target)}") as tell:
                    convert.decode_file(part, target, tell)
                taken[target] = file
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
            print(f"The page is {shown(report / PAGE)}", file=sys.stderr if as_json else sys.stdout)
    log.finish()


@app.command()
def count(
    files: Files,
    models: Annotated[
        str | None,
        typer.Option("--for", metavar="MODEL,...", help="Models by name (docs/charges.md), or all; else a usual ten."),
    ] = None,
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
        raise BadInput(shown(str(error))) from None
    log, found = Log(as_json), []
    for file in files:
        with log.faults(file):
            check_input(file)
            found.append(charges.count(file, wanted))
            if as_json:
                log.object_line(found[-1].as_dict(prices, sources))
    if found and not as_json:
        print_grid("tokens", *charges.grid(found, wanted, prices))
        print(*charges.sources(wanted, [f.info.modality for f in found], sources), sep="\n")
    log.finish()


@app.command()
def compare(
    files: Files,
    report: Annotated[Path | None, typer.Option(metavar="DIR", help="Write a page to look at and listen to.")] = None,
    plot: Annotated[Path | None, typer.Option(metavar="OUT.png", help="Draw fidelity over bytes.")] = None,
    as_json: Json = False,
) -> None:
    """Set tokenizers side by side on files: panglot, a linear code, classical codecs; tokens, bytes, fidelity, time."""
    from contextlib import nullcontext

    from panglot import compare_report as showing
    from panglot.compare import compare as compared
    from panglot.report import PAGE, media_folder, staged

    if plot is not None and (plot.suffix.lower() != ".png" or plot.is_dir() or not plot.parent.is_dir()):
        raise BadInput(f"{shown(plot)}: --plot names a PNG file, in a folder that exists")
    if plot is not None and not os.access(plot if plot.exists() else plot.parent, os.W_OK):
        raise BadInput(f"{shown(plot)}: --plot cannot be written there; choose another folder")
    log, found = Log(as_json), []
    with nullcontext() if report is None else staged(report) as work:
        for number, file in enumerate(files, 1):
            with log.faults(file):
                check_input(file)
                folder = None if work is None else media_folder(work, number, file)
                with progress(shown(file)) as tell:
                    found.append(compared(file, folder, tell))
                if as_json:
                    log.object_line(found[-1].as_dict())
                for part in () if as_json else found[-1].parts:
                    print_grid(f"{shown(file)}: {part.said}", *showing.columns(part))
                    print(*map(shown, showing.notes(part)), sep="\n")
        if found and work is not None:
            showing.write(found, work)
    if found and plot is not None:
        showing.plot(found, plot)
    if found and report is not None:
        print(f"The page is {shown(report / PAGE)}", file=sys.stderr if as_json else sys.stdout)
    log.finish()


@app.command()
def plan(
    files: Files,
    budget: Annotated[int | None, typer.Option(metavar="N", help="How N tokens would be shared by all files.")] = None,
    as_json: Json = False,
) -> None:
    """Tell what files will cost in tokens, and what budgets will buy, from their sizes alone. Nothing is encoded."""
    from panglot import plan as planning
    from panglot.budget import BudgetError

    log, found, shares = Log(as_json), [], []
    for file in files:
        with log.faults(file):
            check_input(file)
            found.append(planning.forecast(file, alone=len(files) == 1))
    if budget is not None and not log.failed:
        try:
            shares = planning.split(found, budget)
        except BudgetError as error:
            raise BadInput(str(error)) from None
    log.planned(found, shares, budget)
    log.finish()


app.command()(cli_model.scan)
app.command()(cli_model.prepare)
app.command("eval")(cli_model.evaluate)
app.command()(cli_generate.train)
app.command()(cli_generate.generate)


@app.command()
def demo(
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="Folder for tokens, media and page.")] = Path(
        "panglot-demo"
    ),
    as_json: Json = False,
) -> None:
    """Show on one page what the shipped model answers across media, and what files become as tokens, and back."""
    from importlib import resources

    from panglot import convert
    from panglot.report import INTRO, PAGE, staged, write

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
        answered = _answered(assets, work, out, log)
        before = "First what the model answers, then how tokens come about. " if answered else ""
        write(found, work, "panglot demo", answered, before + INTRO)
        (work / "ATTRIBUTION.md").write_bytes((assets / "ATTRIBUTION.md").read_bytes())
    if not as_json:
        print(f"Tokens (.pgt) and what they decode to are in {shown(out)}.")
        print(f"To see and hear it, open {shown((out / PAGE).resolve())}")
    log.finish()


def _answered(assets: Path, work: Path, out: Path, log: Log) -> list[tuple[str, str]]:
    """Ask the shipped model, if there is one; print what it says, and return the section of the page that shows it."""
    from panglot import grid, grid_report
    from panglot.checkpoint import CheckpointError
    from panglot.generate import GenerateError

    if grid.missing():
        print("panglot: this copy has no model in it, so the page shows files and their tokens only", file=sys.stderr)
        return []
    with log.faults(assets):
        try:
            with progress("ask the model for everything") as tell:
                answers = grid.ask(assets, work / "media" / "answers", told=tell)
        except (CheckpointError, GenerateError) as error:
            raise BadInput(shown(str(error))) from None
        if log.as_json:
            for answer in answers.objects(lambda file: out / file.relative_to(work)):
                log.object_line(answer)
        else:
            print_grid(grid_report.TITLE, *answers.columns())
        return [grid_report.section(answers, work)]
    return []


def _inspect_all(files: list[Path], options: Any, work: Path | None, log: Log) -> list[Inspection]:
    from panglot import inspect as inspecting

    found: list[Inspection] = []
    for number, file in enumerate(files, 1):
        with log.faults(file):
            check_input(file)
            folder = None
            if work is not None:
                from panglot.report import media_folder

                folder = media_folder(work, number, file)
            with progress(shown(file)) as tell:
                result = inspecting.inspect(file, options, folder, lambda level, part, tell=tell: tell(part))
            found.append(result)
            log.inspected(result)
    return found


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
        print(f"panglot: {shown(' '.join(message.split()))} (see panglot --help)", file=sys.stderr)
    except BadInput as error:
        print(f"panglot: {error}", file=sys.stderr)
    except OSError as error:
        print(f"panglot: {fault(Path('output'), error)}", file=sys.stderr)
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and "memory" not in str(error):
            raise
        print("panglot: needs more memory than there is; ask for less at once, or smaller sizes", file=sys.stderr)
    return BAD_INPUT


def main() -> NoReturn:
    """Entry point of the `panglot` command."""

    def stop(number: int, frame: object) -> NoReturn:
        raise SystemExit(128 + number)  # so that half-written files are removed on the way out

    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started us: what is said goes nowhere
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
    signal.signal(signal.SIGTERM, stop)
    code = run(sys.argv[1:])
    if code == INTERRUPTED:
        print("panglot: interrupted; nothing half-written is left", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
