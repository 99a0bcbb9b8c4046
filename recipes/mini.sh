#!/bin/sh
# How the shipped model is made: the picture book, its tokens, the training, its marks.
#
#     recipes/mini.sh DATA [WORK]
#
# DATA is the material that docs/data.md lists, WORK a folder for everything that is made (.cache by default). espeak-ng
# is needed for the picture book. About 3, 11 and 130 minutes on two cores that compute in bfloat16 (twice as long on
# others), and 30 for the marks; each step goes on where it was stopped. What is in src/panglot/assets/mini was trained in
# nine runs, see its card; this is one as long as the last two of them.
set -eu
data=$1 work=${2:-.cache}

python recipes/primer/build.py --data "$data" -o "$work/primer"
panglot scan "$work/primer/train" --variants 3 --side 64 --seconds 1.6 --fps 8 --frames 9
panglot prepare "$work/primer/train" -o "$work/shards" --join text --variants 3 \
    --side 64 --seconds 1.6 --fps 8 --frames 9
panglot train "$work/shards" -o "$work/mini" --size mini --steps 14000 --rows 8 --length 448
panglot eval "$work/mini" --data "$work/primer" --shards "$work/shards" --out "$work/eval.json"
