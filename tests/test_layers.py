"""The shape of the code: imports run one way, and nothing grows too large to read."""

import ast
from pathlib import Path

import pytest

import panglot

PACKAGE = Path(panglot.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))

LAYERS = (
    {"_limits", "_memory"},
    {"media", "_source", "_images", "_isolate", "_containers", "_writers"},
    {"tokenizers.base"},
    {"tokenizers.flags"},
    {"bitpack"},
    {"tokenfile"},
    {"tokenizers.quantize", "tokenizers.spectrum", "tokenizers.weights"},
    {"tokenizers.pyramid"},
    {"tokenizers.text", "tokenizers.image", "tokenizers.audio"},
    {"tokenizers.change"},
    {"tokenizers.video"},
    {"tokenizers"},
    {"layout"},
    {"grammar"},
    {"stream"},
    {"fitting"},
    {"measure"},
    {"peers", "regions"},
    {"linear", "classical"},
    {"allocation"},
    {"detail"},
    {"budget"},
    {"convert", "charges", "plan"},
    {"folders"},
    {"shards"},
    {"variants"},
    {"prepare", "scan"},
    {"decoding"},
    {"model"},
    {"checkpoint"},
    {"rereading"},
    {"generate"},
    {"mixing"},
    {"learning"},
    {"muon"},
    {"train"},
    {"pretrain"},
    {"judges"},
    {"judge_training", "cells"},
    {"evaluate"},
    {"evaluate_report"},
    {"inspect", "compare"},
    {"grid"},
    {"report"},
    {"compare_report", "grid_report"},
    {"panglot"},
    {"_terminal"},
    {"cli_model", "cli_generate"},
    {"cli", "testing"},
)
"""Bottom first. A module may import from below, and from its own layer where the layer has several modules by design.
The top layer are edges: nothing imports them."""


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(p for p in parts if p != "__init__") or "panglot"


def height(name: str) -> int:
    found = [i for i, layer in enumerate(LAYERS) if name in layer]
    assert found, f"{name} has no layer: give it one in {Path(__file__).name}"
    return found[0]


def imports(path: Path) -> set[str]:
    """The modules of panglot that a module imports, inside functions and for types too."""
    known = {"panglot", *(f"panglot.{name_of(p)}" for p in MODULES)}
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.add(whole if whole in known else str(node.module))
    return {name.removeprefix("panglot.") for name in found if name.split(".")[0] == "panglot"}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_run_one_way(path):
    name = name_of(path)
    for other in imports(path) - {name}:
        within_media = height(other) == height(name) == height("media")
        assert height(other) < height(name) or within_media, f"{name} must not import {other}"


def test_there_is_no_circle_within_the_media_layer_at_import_time():
    """media imports its readers and writers only when they are needed."""
    tree = ast.parse((PACKAGE / "media.py").read_text("utf-8"))
    at_once = {node.module for node in tree.body if isinstance(node, ast.ImportFrom)}
    assert not at_once & {"panglot._images", "panglot._containers", "panglot._writers", "panglot._isolate"}


def test_every_module_of_the_map_exists():
    assert set().union(*LAYERS) == {name_of(path) for path in MODULES}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_can_be_read_at_a_sitting(path):
    source = path.read_text("utf-8")
    tree = ast.parse(source)
    assert ast.get_docstring(tree), "a module opens with what it is for"
    assert source.count("\n") <= 500, "at most 500 lines a file"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            first = node.decorator_list[0].lineno if node.decorator_list else node.lineno
            assert node.end_lineno - first < 60, f"{node.name}: at most 60 lines a function"
            if node.name == "__init__":
                args = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
                assert len(args) <= 11, "at most 10 arguments a constructor"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_nothing_is_unpickled(path):
    tree = ast.parse(path.read_text("utf-8"))
    for node in ast.walk(tree):
        names = [a.name for a in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        assert not {"pickle", "marshal", "shelve", "dill"} & {*names, getattr(node, "module", None)}
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "load":
            owner = node.func.value
            if isinstance(owner, ast.Name) and owner.id in ("torch", "np", "numpy"):
                keywords = {k.arg: getattr(k.value, "value", None) for k in node.keywords}
                safe = {"torch": ("weights_only", True)}.get(owner.id, ("allow_pickle", False))
                assert keywords.get(safe[0]) is safe[1], (
                    f"line {node.lineno}: {owner.id}.load without {safe[0]}={safe[1]}"
                )
