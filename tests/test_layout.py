"""Where things stand: imports go one way, lazy ones too, and folders stay small enough to look through."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import ROOT

# A package imports only those after it. `analysis` stands between `cli` and the rest.
ORDER = [
    "roadmap.cli", "roadmap.export", "roadmap.downstream", "roadmap.robustness", "roadmap.metrics", "roadmap.jobs",
    "roadmap.measuring", "roadmap.training", "roadmap.study", "roadmap.data", "roadmap.runs", "roadmap.ladder",
    "roadmap.recipe", "roadmap.networks", "roadmap.common",
]  # fmt: skip
NOT_FOR_ANALYSIS = ("roadmap.cli", "roadmap.export", "roadmap.jobs", "roadmap.training")
# Former names, which go on working, and the program.
AT_THE_TOP = ("roadmap", "roadmap.__main__", "roadmap.config", "roadmap.convert", "roadmap.job", "roadmap.registry")
WITHOUT_TORCH = ("common", "ladder", "runs", "study", "cli")
MOST_MODULES = 14


def package_of(module: str) -> str:
    """Return the part of the map that a module belongs to."""
    parts = module.split(".")
    return parts[0] if parts[0] == "analysis" else ".".join(parts[:2])


def modules() -> Iterator[tuple[str, Path]]:
    """Yield each module of the program and its file."""
    for path in sorted([*(ROOT / "roadmap").rglob("*.py"), *(ROOT / "analysis").rglob("*.py")]):
        parts = path.relative_to(ROOT).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def imports_of(path: Path) -> Iterator[str]:
    """Yield every module of ours that a file imports anywhere in it, at its start or when a function is called."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name.split(".")[0] in ("roadmap", "analysis"))
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in ("roadmap", "analysis"):
            whole = node.module in ("roadmap", "analysis")
            yield from (f"{node.module}.{name.name}" for name in node.names) if whole else (node.module,)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("roadmap."):
            is_module = (ROOT / node.value.replace(".", "/")).with_suffix(".py").is_file()
            yield from [node.value] * is_module  # import_module("roadmap. ...")


@pytest.mark.parametrize("module", [name for name, _ in modules() if name not in AT_THE_TOP])
def test_a_module_imports_only_what_stands_after_its_package(module: str) -> None:
    ours, path = package_of(module), dict(modules())[module]
    for other in map(package_of, imports_of(path)):
        if other == ours:
            continue
        if ours == "analysis":
            assert other in ORDER, f"{module} imports {other}"
            assert other not in NOT_FOR_ANALYSIS, f"{module} imports {other}"
        elif other == "analysis":
            assert ours == "roadmap.cli", f"{module} imports {other}"
        else:
            assert ORDER.index(ours) < ORDER.index(other), f"{module} imports {other}"


def test_no_cycle_of_modules() -> None:
    names = {name for name, _ in modules()}
    graph = {name: {other for other in imports_of(path) if other in names} for name, path in modules()}
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, " -> ".join((*above, name))
        if name not in done:
            for other in graph[name] - {name}:
                visit(other, (*above, name))
            done.add(name)

    for name in sorted(names - set(AT_THE_TOP)):
        visit(name, ())


def test_every_package_says_what_belongs_there_and_what_does_not() -> None:
    for folder in {path.parent for _, path in modules()}:
        text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or ""
        assert text, folder
        assert folder.name == "fashion_mnist" or len(list(folder.glob("[!_]*.py"))) <= MOST_MODULES, folder


@pytest.mark.parametrize("package", [*(f"roadmap.{name}" for name in WITHOUT_TORCH), "analysis"])
def test_neither_torch_nor_timm_is_imported_with(package: str) -> None:
    names = [name for name, _ in modules() if package_of(name) == package]
    code = f"import sys, {', '.join(names)}; print({{'torch', 'timm'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("set()\n", "")
