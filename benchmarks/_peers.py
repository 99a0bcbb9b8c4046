"""Neural tokenizers to compare speed with, at their published sizes, with random weights.

Each function builds one model and returns a `Peer`, whose `run` encodes and decodes the given input once. Speed does
not depend on what the weights are, as long as they work: Mimi and EnCodec are built with codebooks of zeros, where
every code is the same, so those are filled at random first; and numbers too small for the processor's fast path, which
random weights may give, are flushed to zero. Each peer runs at its cheapest published setting that is near panglot's
rate. The source of each size is in the docstring of its function.

As a module: `timed` measures one peer in a process of its own, within a time limit. As a program
(`python _peers.py KIND/NAME REPEAT THREADS`): that process, which says on standard output what it begins and ends.
Not here: fidelity, for which trained weights would be needed.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from subprocess import PIPE
from tempfile import TemporaryFile
from threading import Event, Timer
from time import perf_counter
from typing import Any

import numpy as np
import torch
from _common import Missing
from _inputs import moving, photo, sound

SIDE, FRAMES = 256, 17
SOUND_SECONDS, SOUND_RATE = 10, 24_000
PATIENCE = 20.0
"""Seconds: a peer whose first call took longer is not called again, though the first call also warms up."""

BUILDING = 600.0
"""Seconds that a peer may take to be imported and built, which is not part of its time."""


def workload(kind: str) -> np.ndarray:
    """uint8 [256, 256, 3], float32 [240000] or uint8 [17, 256, 256, 3]."""
    if kind == "image":
        return photo(SIDE, SIDE)
    return sound(SOUND_SECONDS, SOUND_RATE) if kind == "sound" else moving(FRAMES, SIDE, SIDE)


@dataclass(frozen=True)
class Peer:
    """name: model and setting; parameters: their number; run: encode and decode once, returns the codes."""

    name: str
    parameters: int
    run: Callable[[], torch.Tensor]


def _library(name: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise Missing(f"{name} is not installed: pip install -c constraints.txt {name}") from error


def _peer(name: str, model: torch.nn.Module, run: Callable[[Any], torch.Tensor]) -> Peer:
    model.eval().requires_grad_(False)

    def once() -> torch.Tensor:
        with torch.inference_mode():
            return run(model)

    return Peer(name, sum(p.numel() for p in model.parameters()), once)


def _picture(pixels: np.ndarray) -> torch.Tensor:
    """uint8 [H, W, 3] -> float32 [1, 3, H, W] in [-1, 1]."""
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1


def emu3(pixels: np.ndarray) -> Peer:
    """Emu3's vision tokenizer; the defaults are those of BAAI/Emu3-VisionTokenizer (arXiv 2409.18869)."""
    library = _library("transformers")
    sizes = torch.tensor([pixels.shape[:2]])

    def run(model: Any) -> torch.Tensor:
        codes = model.encode(_picture(pixels), sizes).image_tokens[0][None]
        model.decode(codes)
        return codes

    return _peer("Emu3VQVAE", library.Emu3VQVAE(library.Emu3VQVAEConfig()), run)


def janus(pixels: np.ndarray) -> Peer:
    """Janus' image tokenizer; the defaults are those of deepseek-ai/Janus (arXiv 2410.13848).

    num_patches, which says only how many codes a side the decoder expects, is set for the given picture.
    """
    library = _library("transformers")
    config = library.JanusVQVAEConfig(num_patches=pixels.shape[0] // 16)

    def run(model: Any) -> torch.Tensor:
        codes = model.encode(_picture(pixels)).image_tokens
        model.decode(codes.view(1, -1))
        return codes

    return _peer("JanusVQVAE", library.JanusVQVAE(config), run)


def vqmodel(pixels: np.ndarray) -> Peer:
    """The VQGAN of aMUSEd-256 (arXiv 2401.01808), sizes as in the conversion script of diffusers."""
    blocks = (128, 256, 256, 512, 768)
    model = _library("diffusers").VQModel(
        block_out_channels=blocks,
        down_block_types=("DownEncoderBlock2D",) * len(blocks),
        up_block_types=("UpDecoderBlock2D",) * len(blocks),
        layers_per_block=2,
        latent_channels=64,
        num_vq_embeddings=8192,
        mid_block_add_attention=False,
        lookup_from_codebook=True,
    )

    def run(model: Any) -> torch.Tensor:
        latents = model.encode(_picture(pixels)).latents
        codes = model.quantize(latents)[2][2]
        _, channels, height, width = latents.shape
        model.decode(codes, force_not_quantize=True, shape=(1, height, width, channels))
        return codes

    return _peer("VQModel (aMUSEd-256)", model, run)


def mimi(samples: np.ndarray) -> Peer:
    """Mimi with 8 codebooks, 1.1 kbit/s; the defaults are those of kyutai/mimi (arXiv 2410.00037)."""
    library = _library("transformers")
    model = library.MimiModel(library.MimiConfig())
    for name, buffer in model.named_buffers():
        if name.endswith("embed_sum"):
            buffer.normal_()
    sound = torch.from_numpy(samples)[None, None]

    def run(model: Any) -> torch.Tensor:
        codes = model.encode(sound, num_quantizers=8).audio_codes
        model.decode(codes)
        return codes

    return _peer("Mimi, 8 codes", model, run)


def encodec(samples: np.ndarray) -> Peer:
    """EnCodec at 1.5 kbit/s; the defaults are those of facebook/encodec_24khz (arXiv 2210.13438)."""
    library = _library("transformers")
    model = library.EncodecModel(library.EncodecConfig())
    sound = torch.from_numpy(samples)[None, None]
    with torch.inference_mode():
        latents = model.encoder(sound)[0]
    # A random encoder's output hardly moves: codebooks of unit scale would answer it with one code for ever.
    spread, centre = latents.std(1), latents.mean(1)
    for i, layer in enumerate(model.quantizer.layers):
        layer.codebook.embed.normal_().mul_(spread).add_(centre if i == 0 else 0)

    def run(model: Any) -> torch.Tensor:
        coded = model.encode(sound, bandwidth=1.5)
        model.decode(coded.audio_codes, coded.audio_scales)
        return coded.audio_codes

    return _peer("EnCodec 24 kHz, 1.5 kbit/s", model, run)


def dac(samples: np.ndarray) -> Peer:
    """DAC at 24 kHz, 2 of its 32 codebooks, 1.5 kbit/s; sizes of descript/dac_24khz (arXiv 2306.06546)."""
    library = _library("transformers")
    config = library.DacConfig(
        sampling_rate=24_000, downsampling_ratios=[2, 4, 5, 8], upsampling_ratios=[8, 5, 4, 2], n_codebooks=32
    )
    sound = torch.from_numpy(samples)[None, None]

    def run(model: Any) -> torch.Tensor:
        codes = model.encode(sound, n_quantizers=2).audio_codes
        model.decode(audio_codes=codes)
        return codes

    return _peer("DAC 24 kHz, 2 codes", library.DacModel(config), run)


def vidtok(frames: np.ndarray) -> Peer:
    """VidTok, causal, 4x8x8, FSQ with 262,144 codes; sizes are the defaults of diffusers (arXiv 2412.13061)."""
    model = _library("diffusers").AutoencoderVidTok(
        z_channels=6, double_z=False, regularizer="fsq", codebook_size=262_144, is_causal=True
    )
    lead = np.repeat(frames[:1], 3, 0)  # the model's own forward does the same: 1 + 4 n frames become 1 + n latents
    clip = torch.from_numpy(np.concatenate([lead, frames])).permute(3, 0, 1, 2)[None].float() / 127.5 - 1

    def run(model: Any) -> torch.Tensor:
        codes = model.encode(clip)[1]
        model.decode(codes, decode_from_indices=True)
        return codes

    return _peer("VidTok 4x8x8 FSQ", model, run)


PEERS: dict[str, dict[str, Callable[[np.ndarray], Peer]]] = {
    "image": {"emu3": emu3, "janus": janus, "vqmodel": vqmodel},
    "sound": {"mimi": mimi, "encodec": encodec, "dac": dac},
    "video": {"vidtok": vidtok},
}


@dataclass
class Timing:
    """What one peer's process told before it ended or was stopped.

    calls: seconds of each call that ended, the first of them cold. running: seconds of a call that had not ended when
    the time was up. distinct: different codes in the first call's output.
    """

    name: str = ""
    parameters: int = 0
    calls: list[float] = field(default_factory=list)
    distinct: int | None = None
    running: float = 0.0

    @property
    def seconds(self) -> float:
        """Median of the calls after the first; of a first call that stayed alone, its own time."""
        return float(np.median(self.calls[1:] or self.calls)) if self.calls else self.running

    @property
    def bound(self) -> bool:
        """Whether `seconds` is only a lower bound, because not one call ended."""
        return not self.calls


def timed(row: str, repeat: int, threads: int, limit: float) -> Timing:
    """Time the peer KIND/NAME in a process of its own, which is stopped `limit` seconds after its model was built.

    Raises Missing where its library is missing or its process ends early.
    """
    return listened([sys.executable, __file__, row, str(repeat), str(threads)], limit)


def listened(command: list[str], limit: float) -> Timing:
    """Follow a process that prints what `_events` yields, one JSON object a line."""
    found, begun, ended, late = Timing(), 0.0, False, Event()

    def alarm(seconds: float) -> Timer:
        def stop() -> None:
            late.set()
            process.kill()

        timer = Timer(seconds, stop)
        timer.start()
        return timer

    with TemporaryFile("w+") as errors, subprocess.Popen(command, stdout=PIPE, stderr=errors, text=True) as process:
        clock = alarm(BUILDING)
        try:
            for event in map(json.loads, process.stdout or ()):
                if "missing" in event:
                    raise Missing(event["missing"])
                if "name" in event:
                    clock.cancel()
                    clock = alarm(limit)
                    found.name, found.parameters = event["name"], event["parameters"]
                begun = perf_counter() if "begin" in event else begun
                if "seconds" in event:
                    found.calls.append(event["seconds"])
                    found.distinct = event["distinct"]
                ended = "end" in event
            found.running = perf_counter() - begun if begun else 0.0
        finally:
            clock.cancel()
            process.kill()
        if not found.name and late.is_set():
            raise Missing(f"its model was not built within {BUILDING:g} s")
        if not ended and not late.is_set():
            errors.seek(0)
            last = errors.read().strip().splitlines()[-1:] or ["no message; too little memory?"]
            raise Missing(f"its process ended with exit code {process.wait()}: {last[0]}")
    return found


def _events(row: str, repeat: int, threads: int) -> Iterator[dict[str, Any]]:
    """Build a peer, call it, and say so before and after: the reader must know what had begun when it lost patience."""
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    torch.manual_seed(0)
    kind, name = row.split("/")
    try:
        model = PEERS[kind][name](workload(kind))
    except Missing as error:
        yield {"missing": str(error)}
        return
    yield {"name": model.name, "parameters": model.parameters}
    for call in range(1 + repeat):
        yield {"begin": call}
        start = perf_counter()
        codes = model.run()
        seconds = perf_counter() - start
        yield {"seconds": seconds, "distinct": len(codes.unique())}
        if seconds > PATIENCE:
            break
    yield {"end": True}


def main(row: str, repeat: str, threads: str) -> None:
    for event in _events(row, int(repeat), int(threads)):
        print(json.dumps(event), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
