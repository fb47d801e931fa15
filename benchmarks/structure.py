"""The shape of the package, before and after: functions, root modules, imports, import time.

    python -m benchmarks.structure [--before REVISION]

Compares the package at a git revision with the one in the working tree and prints one table.
Import time is measured interleaved, since the machine may be busy; the other figures are exact.
"""

from __future__ import annotations

import argparse
import ast
import io
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "browserkeeper"
ROUNDS = 30


def functions(package: Path) -> list[int]:
    """Lines of each function and method, docstring and decorators not counted."""
    sizes = []
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                docstring = node.body[0] if ast.get_docstring(node) else None
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if docstring is not None:
                    lines -= (docstring.end_lineno or docstring.lineno) - docstring.lineno + 1
                sizes.append(lines)
    return sizes


def part_of(module: str) -> str:
    return module.split(".")[0]


def import_arrows(package: Path) -> set[tuple[str, str]]:
    """(importing module, imported module) inside the package; lazy and type-only imports count."""
    modules = {_module(package, path): path for path in package.rglob("*.py")}
    arrows = set()
    for module, path in modules.items():
        own = module.split(".") if path.name == "__init__.py" and module else module.split(".")[:-1]
        own = [word for word in own if word]
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.ImportFrom) or not node.level:
                continue
            base = own[: len(own) - node.level + 1]
            target = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                inner = f"{target}.{alias.name}".lstrip(".")
                arrows.add((module, inner if inner in modules else target))
    return {(importer, imported) for importer, imported in arrows if importer != imported}


def _module(package: Path, path: Path) -> str:
    parts = list(path.relative_to(package).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def circles(arrows: set[tuple[str, str]]) -> int:
    """Pairs of modules that import each other, directly or through others."""
    below: dict[str, set[str]] = {}
    for importer, imported in arrows:
        below.setdefault(importer, set()).add(imported)
    reach = {}
    for module in below:
        found, queue = set(), [module]
        while queue:
            for further in below.get(queue.pop(), ()):
                if further not in found:
                    found.add(further)
                    queue.append(further)
        reach[module] = found
    return sum(1 for a in reach for b in reach[a] if a < b and a in reach.get(b, ()))


def import_seconds(place: Path, statement: str) -> float:
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", statement], cwd=place, check=True, env={"PYTHONPATH": str(place)}
    )
    return time.perf_counter() - began


def figures(place: Path) -> dict[str, str]:
    package = place / PACKAGE
    sizes = sorted(functions(package))
    arrows = import_arrows(package)
    between = {(part_of(a), part_of(b)) for a, b in arrows if part_of(a) != part_of(b) and a and b}
    largest = max(package.rglob("*.py"), key=lambda path: len(path.read_text().splitlines()))
    return {
        "modules": str(len(list(package.rglob("*.py")))),
        "modules at the root": str(len(list(package.glob("*.py")))),
        "packages (layers)": str(len([p for p in package.iterdir() if (p / "__init__.py").exists()])),
        "functions": str(len(sizes)),
        "lines of a function, median": f"{statistics.median(sizes):g}",
        "lines of a function, 90th percentile": f"{sizes[int(len(sizes) * 0.9)]}",
        "longest function, lines": str(sizes[-1]),
        "longest module": str(largest.relative_to(package)),
        "its lines": str(len(largest.read_text().splitlines())),
        "import arrows between modules": str(len(arrows)),
        "import arrows between root modules and packages": str(len(between)),
        "pairs of modules in a circle (types included)": str(circles(arrows)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--before", default="6e3a751", help="the git revision to compare with")
    before = parser.parse_args().before
    with tempfile.TemporaryDirectory() as scratch:
        archive = subprocess.run(
            ["git", "archive", before, PACKAGE], cwd=ROOT, check=True, capture_output=True
        ).stdout
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            tar.extractall(scratch)
        old, new = figures(Path(scratch)), figures(ROOT)
        for what in ("import browserkeeper", "import browserkeeper; browserkeeper.browser", "pass"):
            times: dict[Path, list[float]] = {Path(scratch): [], ROOT: []}
            for _ in range(ROUNDS):
                for place, seconds in times.items():
                    seconds.append(import_seconds(place, what))
            row = [f"{statistics.median(seconds) * 1000:.1f} ms" for seconds in times.values()]
            old[f"`{what}`, median"], new[f"`{what}`, median"] = row
    print(f"| | {before} | now |\n| --- | --- | --- |")
    for name, figure in old.items():
        print(f"| {name} | {figure} | {new[name]} |")


if __name__ == "__main__":
    main()
