"""Average two weights files of one shape: `python recipes/average.py A B --share 0.25 --out FILE`.

Weights that went on from others lie in the same basin, and a mean of both may do better on what neither has seen than
either (Wortsman et al. 2022, arXiv 2203.05482). The shipped sound weights are three parts of one run and one part of
the run that went on from it with more music (docs/log.md). Not here: training.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from torch import Tensor, nn

from panglot.tokenizers.weights import read_weights, save_weights


class Tensors(nn.Module):
    """Tensors under names of their own, as something that can be saved."""

    def __init__(self, tensors: dict[str, Tensor]):
        super().__init__()
        self.tensors = tensors

    def state_dict(self, *args, **kwargs) -> dict[str, Tensor]:
        return self.tensors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("a", type=Path)
    parser.add_argument("b", type=Path)
    parser.add_argument("--share", type=float, default=0.5, help="of B in the mean")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    (a, config), (b, other) = read_weights(args.a), read_weights(args.b)
    if a.keys() != b.keys() or config != other:
        parser.error("the two files are not weights of one network")
    mean = {name: (1 - args.share) * tensor + args.share * b[name] for name, tensor in a.items()}
    save_weights(Tensors(mean), config, args.out)


if __name__ == "__main__":
    main()
