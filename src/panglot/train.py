"""The one training loop: tokenizers and the language model both go through `fit`.

A run is a pure function of its seed: batches and random choices depend on (seed, step) alone, so a run that was killed
and resumed passes through the same states as one that was not. Parameters are trained with AdamW, or matrices with Muon
(Jordan et al. 2024, as in torch.optim) and the rest with AdamW; the rate warms up and then falls linearly to zero.
Asked to stop (Ctrl-C, SIGTERM), a run finishes the step at hand and keeps it; killed, it goes back to the last
checkpoint. Two runs in one folder would overwrite each other's, so the second is refused.

Not here: data, losses, models; a recipe or the caller brings those.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from panglot.muon import Muon


@dataclass(frozen=True)
class Schedule:
    """steps in total, the learning rates at their highest (muon_lr 0: no Muon), steps between two checkpoints."""

    steps: int
    lr: float = 1e-3
    muon_lr: float = 0.0
    warmup: int = 100
    weight_decay: float = 0.01
    clip: float = 1.0
    checkpoint_every: int = 200
    seed: int = 0

    def factor(self, step: int) -> float:
        """The learning rate at `step`, as a share of the highest."""
        return min((step + 1) / self.warmup, max(0.0, (self.steps - step) / max(1, self.steps - self.warmup)))


class TrainError(RuntimeError):
    """A run that cannot go on: its folder is in use or another run's, or the loss is not a number."""


def optimizers(model: nn.Module, schedule: Schedule) -> list[torch.optim.Optimizer]:
    """AdamW for all parameters, or Muon for the matrices and AdamW for vectors, convolutions and embeddings."""
    matrices, rest = [], []
    for owner in model.modules():
        table = isinstance(owner, nn.Embedding | nn.ParameterDict)
        for parameter in owner.parameters(recurse=False):
            if parameter.requires_grad:
                matrix = not table and parameter.ndim == 2 and min(parameter.shape) >= 16
                (matrices if schedule.muon_lr > 0 and matrix else rest).append(parameter)
    made: list[torch.optim.Optimizer] = []
    if matrices:
        made.append(Muon(matrices, lr=schedule.muon_lr, weight_decay=schedule.weight_decay))
    if rest:
        decay = schedule.weight_decay
        made.append(torch.optim.AdamW(rest, lr=schedule.lr, betas=(0.9, 0.98), weight_decay=decay, fused=True))
    return made


def fit(
    model: nn.Module,
    batch: Callable[[int], Any],
    loss: Callable[[nn.Module, Any, int], tuple[Tensor, Mapping[str, float]]],
    schedule: Schedule,
    run: Path,
    evaluate: Callable[[nn.Module], Mapping[str, float]] | None = None,
) -> nn.Module:
    """Train `model` in place and return it.

    batch(step) makes the data of a step (called ahead of time in a thread); loss(model, data, step) returns the scalar
    to minimise and figures to log. `run` receives `checkpoint.safetensors` (weights, optimiser state, step) and
    `log.jsonl`; when it holds a checkpoint of the same schedule the run continues from it.
    """
    run.mkdir(parents=True, exist_ok=True)
    with _alone(run), _stop_requests() as asked:
        opts = optimizers(model, schedule)
        start = _resume(model, opts, schedule, run)
        _steps(model, opts, batch, loss, schedule, run, evaluate, start, asked)
    return model


def _steps(model, opts, batch, loss, schedule: Schedule, run: Path, evaluate, start: int, asked: list[int]) -> None:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[figures]}"),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    log = _open_log(run / "log.jsonl", start)
    with ThreadPoolExecutor(1) as ahead, Progress(*columns, console=console) as progress, log:
        task = progress.add_task("training", total=schedule.steps, completed=start, figures="")
        future = ahead.submit(batch, start)
        mean: dict[str, float] = {}
        began = time.perf_counter()
        for step in range(start, schedule.steps):
            data = future.result()
            if step + 1 < schedule.steps:
                future = ahead.submit(batch, step + 1)
            logged = _step(model, data, loss, opts, schedule, step)
            mean = {k: 0.95 * mean.get(k, v) + 0.05 * v for k, v in logged.items()}
            last = step + 1 == schedule.steps
            save = (step + 1) % schedule.checkpoint_every == 0 or last
            if save or (step + 1) % 20 == 0:
                rate = (step + 1 - start) / (time.perf_counter() - began)
                row = {"step": step + 1, "steps_per_s": round(rate, 3), **{k: round(v, 4) for k, v in mean.items()}}
                if "tokens" in mean:
                    row["tokens_per_s"] = round(mean["tokens"] * rate, 1)
                progress.update(task, completed=step + 1, figures=" ".join(f"{k} {v:.3f}" for k, v in mean.items()))
                if save:
                    _save(model, opts, schedule, step + 1, run)
                    if evaluate is not None:
                        row |= {f"held_out_{k}": round(v, 4) for k, v in evaluate(model).items()}
                log.write(json.dumps(row) + "\n")
                log.flush()
                if save and not console.is_terminal:  # where a bar cannot be seen
                    print(f"step {step + 1} of {schedule.steps}: loss {mean.get('loss', 0):.3f}", file=sys.stderr)
            if asked and not last:
                if not save:
                    _save(model, opts, schedule, step + 1, run)
                progress.stop()
                print(f"stopped behind step {step + 1}; the same command goes on from there", file=sys.stderr)
                signal.raise_signal(asked[0])


@contextmanager
def _alone(run: Path) -> Iterator[None]:
    """Hold the folder of a run. Raises TrainError where another process holds it."""
    with (run / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TrainError(f"{run}: another training runs here; wait for it, or choose another folder") from None
        yield


@contextmanager
def _stop_requests() -> Iterator[list[int]]:
    """A list that gets the first SIGINT or SIGTERM; a second one, and one after the list was read, acts as ever."""
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():  # where Python allows no handlers
        yield asked
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    before = {number: handler for number, handler in before.items() if handler not in (signal.SIG_IGN, None)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def ask(number: int, _frame: object) -> None:
        asked.append(number)
        restore()

    for number in before:
        signal.signal(number, ask)
    try:
        yield asked
    finally:
        restore()


def _step(model, data, loss, opts, schedule: Schedule, step: int) -> Mapping[str, float]:
    torch.manual_seed(schedule.seed * 1_000_003 + step)
    value, figures = loss(model, data, step)
    if not torch.isfinite(value):
        raise TrainError(
            f"the loss is {value.item()} at step {step}: begin in another folder with a lower learning rate"
        )
    value.backward()
    nn.utils.clip_grad_norm_(model.parameters(), schedule.clip)
    for opt in opts:
        highest = schedule.muon_lr if isinstance(opt, Muon) else schedule.lr
        for group in opt.param_groups:
            group["lr"] = highest * schedule.factor(step)
        opt.step()
        opt.zero_grad(set_to_none=True)
    return figures


def _open_log(path: Path, start: int):
    """The log, opened for appending after the rows before `start` (rows after a checkpoint are run again)."""
    rows = path.read_text("utf-8", "replace").splitlines() if path.exists() else []
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(row + "\n" for row in rows if 0 <= _step_of(row) <= start))
    os.replace(temporary, path)
    return path.open("a")


def _step_of(row: str) -> int:
    """The step of a row of the log; -1 for one that was cut short."""
    try:
        return int(json.loads(row)["step"])
    except (ValueError, KeyError, TypeError):
        return -1


def _state(model: nn.Module, opts) -> dict[str, Tensor]:
    tensors = {f"model.{k}": v for k, v in model.state_dict().items()}
    for i, opt in enumerate(opts):
        for j, state in opt.state_dict()["state"].items():
            for k, v in state.items():
                tensors[f"opt.{i}.{j}.{k}"] = v if isinstance(v, Tensor) else torch.tensor(v)
    return {k: v.detach().contiguous().clone() for k, v in tensors.items()}


def _save(model, opts, schedule: Schedule, step: int, run: Path) -> None:
    temporary = run / "checkpoint.tmp"
    metadata = {"step": str(step), "schedule": json.dumps(asdict(schedule))}
    try:
        save_file(_state(model, opts), temporary, metadata=metadata)
        os.replace(temporary, run / "checkpoint.safetensors")
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        remedy = "make room, and run the same again: it goes on from the last checkpoint"
        raise TrainError(f"{run}: cannot be written ({reason}); {remedy}") from None
    finally:
        temporary.unlink(missing_ok=True)


def _resume(model, opts, schedule: Schedule, run: Path) -> int:
    path = run / "checkpoint.safetensors"
    if not path.exists():
        return 0
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            saved = json.loads(metadata["schedule"])
            if saved != asdict(schedule):
                raise TrainError(f"{path} belongs to another schedule ({saved}): choose another folder or delete it")
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise TrainError(f"{path} is damaged ({error}): delete it to begin again") from None
    try:
        model.load_state_dict({k[6:]: v for k, v in tensors.items() if k.startswith("model.")})
    except RuntimeError:
        raise TrainError(f"{path} belongs to another model: choose another folder or delete it") from None
    for i, opt in enumerate(opts):
        state: dict[int, dict[str, Any]] = {}
        for key, value in tensors.items():
            if key.startswith(f"opt.{i}."):
                _, _, j, name = key.split(".", 3)
                state.setdefault(int(j), {})[name] = value
        packed = opt.state_dict()
        packed["state"] = state
        opt.load_state_dict(packed)
    return int(metadata["step"])
