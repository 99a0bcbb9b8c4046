"""Pictures at equal bytes: panglot, the linear code with the same bits, JPEG, WebP and AVIF on Kodak crops.

    python benchmarks/image_fidelity.py --data DATA [--json] [--only 'jpeg*,klt*']

Sixteen centre crops of 256x256 from bench/kodak. panglot's bytes are raw code bits, without any entropy coding; the
linear code (patch KLT, Lloyd-Max, reverse water-filling) has the same bits a picture; the classical codecs may use up
to the same bytes, headers not counted, and may code the picture smaller. The KLT learns from photographs of train/,
the same that panglot's tokenizer learned from. Fidelity is PSNR and SSIM on RGB, averaged over the crops.
Not measured: how pictures look; see the report of `panglot inspect --report`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from _common import (
    Cell,
    Missing,
    Options,
    Table,
    choose,
    each,
    entries,
    load,
    mean,
    options,
    report,
    rows_or_notes,
    tokenizer,
)
from _klt import Klt
from _pictures import AVIF, JPEG, WEBP, best_within

from panglot import budget, media
from panglot.measure import psnr, ssim

SIDE = 256
STRIDES = (32, 16, 8)
CODE_BITS = 12  # of every image alphabet; used for the budgets when panglot's weights are not there
PATCHES = (16, 8, 32)
TRAIN_FOLDERS = ("caltech101", "grocery", "skimage")
TRAIN_PATCHES = 20_000
CODECS = {"jpeg": JPEG, "webp": WEBP, "avif": AVIF}
RATES = {16: "stride 16", 8: "stride 8"}
FIT = "panglot-fit"
EFFORTS = {"panglot": 0, "panglot-e2": 2, "panglot-e6": 6}


def crops(opts: Options) -> list[np.ndarray]:
    """Centre crops uint8 [256, 256, 3] of the Kodak pictures, in file order."""
    folder = opts.folder("bench/kodak")
    pictures = [load(row["path"], media.Image).pixels for row in entries(folder)[: opts.limit]]
    return [centre(pixels) for pixels in pictures]


def centre(pixels: np.ndarray, side: int = SIDE) -> np.ndarray:
    """The middle `side` x `side` pixels of uint8 [H, W, 3]."""
    top, left = (pixels.shape[0] - side) // 2, (pixels.shape[1] - side) // 2
    return np.ascontiguousarray(pixels[top : top + side, left : left + side])


def train_patches(opts: Options, side: int, count: int = TRAIN_PATCHES) -> np.ndarray:
    """Random patches float32 [count, side * side * 3] of training photographs, 16 of each photograph."""
    rng = np.random.default_rng(opts.seed)
    rows = [row for name in TRAIN_FOLDERS for row in entries(opts.folder(f"train/{name}"))]
    patches = []
    for row in choose(rows, count // 16, opts.seed):
        pixels = load(row["path"], media.Image).pixels
        if min(pixels.shape[:2]) < side:
            continue
        for _ in range(16):
            top = rng.integers(pixels.shape[0] - side + 1)
            left = rng.integers(pixels.shape[1] - side + 1)
            patches.append(pixels[top : top + side, left : left + side].ravel())
    return np.asarray(patches, np.float32)


def klt_code(klt: Klt, pixels: np.ndarray, side: int, bits: float) -> np.ndarray:
    """One picture uint8 [H, W, 3], sides divisible by `side`, through the linear code at `bits` a patch."""
    h, w = pixels.shape[0] // side, pixels.shape[1] // side
    patches = pixels.reshape(h, side, w, side, 3).swapaxes(1, 2).reshape(h * w, -1)
    coded = klt.code(patches.astype(np.float32), bits).reshape(h, w, side, side, 3).swapaxes(1, 2)
    return np.clip(np.rint(coded), 0, 255).astype(np.uint8).reshape(pixels.shape)


def fidelity(originals: list[np.ndarray], decoded: list[np.ndarray], sizes: list[float]) -> dict[str, Cell]:
    pairs = list(zip(originals, decoded, strict=True))
    return {
        "bytes": mean(sizes),
        "PSNR dB": mean(psnr(a, b) for a, b in pairs),
        "SSIM": mean(ssim(a, b) for a, b in pairs),
        "crops": len(pairs),
    }


class Rows:
    """The measurements by row name: panglot/STRIDE, klt-PATCH/STRIDE, and CODEC/STRIDE at the bytes of that stride."""

    def __init__(self, opts: Options) -> None:
        self.opts = opts
        self.crops = crops(opts)
        self._klts: dict[int, Klt] = {}
        try:
            self.tokenizer = tokenizer("image")
        except Missing as error:
            self.tokenizer, self.missing = None, error

    def budget(self, stride: int) -> int:
        """Bytes of one crop's raw codes down to a stride."""
        bits = {a.name: a.bits for a in self.tokenizer.alphabets} if self.tokenizer else {}
        levels = [s for s in STRIDES if s >= stride]
        return sum((SIDE // s) ** 2 * bits.get(f"image/{s}", CODE_BITS) for s in levels) // 8

    def panglot(self, stride: int, effort: int) -> dict[str, Cell]:
        if self.tokenizer is None:
            raise self.missing
        codes = [self.tokenizer.encode(media.Image(pixels), stride=stride, effort=effort) for pixels in self.crops]
        sizes = [code.bits(self.tokenizer.alphabets) / 8 for code in codes]
        return fidelity(self.crops, [self.tokenizer.decode(code).pixels for code in codes], sizes)

    def fitted(self, stride: int) -> dict[str, Cell]:
        """As many tokens as the levels down to `stride` have, spent by `panglot.budget` in a picture scaled to suit."""
        if self.tokenizer is None:
            raise self.missing
        tokens = self.budget(stride) * 8 // CODE_BITS
        wish = budget.Wish(tokens=tokens, exact=True)
        codes = [budget.encode([media.Image(pixels)], wish)[0] for pixels in self.crops]
        sizes = [code.bits(self.tokenizer.alphabets) / 8 for code in codes]
        return fidelity(self.crops, [self.tokenizer.decode(code).pixels for code in codes], sizes)

    def linear(self, side: int, stride: int) -> dict[str, Cell]:
        if side not in self._klts:
            self._klts[side] = Klt.fit(train_patches(self.opts, side), keep=min(side * side * 3, 256))
        bits = self.budget(stride) * 8 * side * side / SIDE**2
        decoded = [klt_code(self._klts[side], pixels, side, bits) for pixels in self.crops]
        return fidelity(self.crops, decoded, [float(self.budget(stride))] * len(decoded))

    def classical(self, name: str, stride: int) -> dict[str, Cell]:
        budget = self.budget(stride)
        coded = each(lambda pixels: best_within(pixels, CODECS[name], budget, psnr), self.crops, self.opts.jobs)
        kept = [c for c in coded if c is not None]
        if len(kept) < len(coded):
            raise Missing(f"{len(coded) - len(kept)} crops do not fit in {budget} bytes at any setting")
        return fidelity(self.crops, [c.pixels for c in kept], [float(c.bytes) for c in kept])

    def all(self) -> dict[str, Callable[[], Mapping[str, Cell]]]:
        found: dict[str, Callable[[], Mapping[str, Cell]]] = {}
        for name, effort in EFFORTS.items():
            for stride in STRIDES:
                found[f"{name}/{stride}"] = lambda s=stride, e=effort: self.panglot(s, e)
        for stride in RATES:
            found[f"{FIT}/{stride}"] = lambda s=stride: self.fitted(s)
            for side in PATCHES:
                found[f"klt-{side}/{stride}"] = lambda k=side, s=stride: self.linear(k, s)
            for name in CODECS:
                found[f"{name}/{stride}"] = lambda n=name, s=stride: self.classical(n, s)
        return found


def row_names() -> list[str]:
    ours = [f"{name}/{s}" for name in EFFORTS for s in STRIDES]
    return ours + [f"{peer}/{s}" for s in RATES for peer in (FIT, *(f"klt-{k}" for k in PATCHES), *CODECS)]


def margins(measured: dict[str, float]) -> Table:
    """How far panglot's PSNR is above each peer's at both rates and every effort, beside what is wanted."""
    table = Table("panglot minus the peer, dB")
    wanted = {("klt-16", 16): 2.0, ("jpeg", 16): 2.0, ("klt-8", 8): 3.0}
    for peer in (*(f"klt-{k}" for k in PATCHES), *CODECS):
        row: dict[str, Cell] = {"peer": peer}
        for stride, label in RATES.items():
            theirs = measured.get(f"{peer}/{stride}")
            for name, effort in EFFORTS.items():
                ours = measured.get(f"{name}/{stride}")
                row[f"{label}, effort {effort}"] = None if ours is None or theirs is None else ours - theirs
            fit = measured.get(f"{FIT}/{stride}")
            row[f"{label}, fitted"] = None if fit is None or theirs is None else fit - theirs
            row[f"wanted, {label}"] = wanted.get((peer, stride))
        table.add(**row)
    row: dict[str, Cell] = {"peer": "panglot, stride 16"}
    for name, effort in EFFORTS.items():
        fine, coarse = measured.get(f"{name}/8"), measured.get(f"{name}/16")
        row[f"stride 8, effort {effort}"] = None if fine is None or coarse is None else fine - coarse
    table.add(**row, **{"wanted, stride 8": 3.0})
    return table


def main() -> None:
    opts = options(__doc__ or "", row_names())
    rows = Rows(opts)
    table = Table(f"Kodak, centre {SIDE}x{SIDE} crops, equal bytes")
    measured: dict[str, float] = {}
    for name, cells in rows_or_notes(rows.all(), opts, table):
        table.add(code=name, **cells)
        measured[name] = float(cells["PSNR dB"] or 0.0)
    table.notes += [
        "fit: as many tokens, of all levels, where they save most, in a picture scaled to suit (--tokens N --exact).",
        "NAME/S: at the bytes of panglot's levels down to stride S; klt-P: patches of PxP pixels; eN: effort N.",
        "jpeg: scan data only, Huffman tables optimised for the crop and not counted; webp: VP8 chunk; avif: mdat box.",
    ]
    report("image_fidelity", [table, margins(measured)], opts)


if __name__ == "__main__":
    main()
