"""What a page names: links, files, commands, modules and parameters. Each checker yields one sentence for each wrong name."""

import importlib
import importlib.util
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import typer

ROOT = Path(__file__).parents[2]
_FENCE = re.compile(r"^(`{3,})(\S*)[^\n]*\n(.*?)^\1$", re.M | re.S)
_CODE = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_PATH = re.compile(r"[\w.{},*-]+(?:/[\w.{},*-]+)+/?|[\w-]+\.(?:py|mjs|toml)\b")
_SOURCE_SUFFIXES = (".py", ".md", ".mjs", ".toml", ".j2")
_PACKAGES = ("data_schemas", "tasks", "ray_jobs", "flows", "benchmarks", "tests", "tools")
_DOTTED = re.compile(rf"(?<![\w./-])(?:{'|'.join(_PACKAGES)})(?:\.\w+)+(?![\w/])")
_GROUPS = ("corpus", "chunking", "packing", "model", "training", "evaluation", "publish", "ray")
_PARAM = re.compile(rf"(?<![\w./-])(?:{'|'.join(_GROUPS)})(?:\.[a-z_][a-z_0-9]*(?:\[\])?)+(?![\w/(])")
_ROPEWAY = re.compile(r"(?:^|[\s`(]|bin/)ropeway((?: [a-z-]+(?: \|)?)+[^`\n#&;]*)")
_MAKE = re.compile(r"(?:^|[$`(] ?)make ([a-z-]+)", re.M)
_MODULE = re.compile(r"python -m ([\w.]+)")


@dataclass(frozen=True)
class Page:
    """A Markdown file; `prose` is its text without fenced blocks, `fences` are (language, content)."""

    path: Path
    text: str

    @property
    def fences(self) -> list[tuple[str, str]]:
        return [(language, content) for _, language, content in _FENCE.findall(self.text)]

    @property
    def prose(self) -> str:
        return _FENCE.sub("\n", self.text)

    @property
    def code(self) -> list[str]:
        """Everything in backticks, on a line or in a block."""
        return [*_CODE.findall(self.prose), *(content for _, content in self.fences)]


def wrong_names(page: Page) -> list[str]:
    """One sentence for each name on the page that does not exist; empty for a good page."""
    checks = (_links, _paths, _trees, _commands, _make_targets, _run_modules, _dotted_names, _parameters)
    return [problem for check in checks for problem in check(page)]


def slug(heading: str) -> str:
    """The anchor of a heading, as code hosts make it."""
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").strip().lower()
    return re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")


def _links(page: Page) -> Iterator[str]:
    for target in _LINK.findall(_CODE.sub("", page.prose)):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (page.path.parent / name).resolve() if name else page.path
        if not path.exists():
            yield f"link to {target}: no such file"
        elif anchor and anchor not in _anchors(path):
            yield f"link to {target}: no such heading"


def _anchors(path: Path) -> set[str]:
    return {slug(heading) for heading in re.findall(r"^#+ (.+)$", Page(path, path.read_text(encoding="utf-8")).prose, re.M)}


@cache
def _tree() -> tuple[frozenset[str], frozenset[str]]:
    """Names of all files and folders of the repository, those not yet committed too; and the files' last parts."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    files = [name for name in listed.stdout.splitlines() if (ROOT / name).exists()]
    folders = {str(parent) for name in files for parent in Path(name).parents}
    return frozenset(files) | folders, frozenset(Path(name).name for name in files)


def _exists(path: str) -> bool:
    names, last_parts = _tree()
    path = path.rstrip("/").rstrip(".")
    if "{" in path:
        head, inner, tail = re.fullmatch(r"(.*?)\{([^}]*)\}(.*)", path).groups()  # type: ignore[union-attr]
        return all(_exists(head + choice + tail) for choice in inner.split(","))
    if "*" in path:
        return any(ROOT.glob(path))
    return path in names or ("/" not in path and path in last_parts)


def _paths(page: Page) -> Iterator[str]:
    """Paths below a top-level folder of the repository, and every name of a source file."""
    top = {name for name in _tree()[0] if "/" not in name} - {"."}
    texts = [*_CODE.findall(page.prose), *(content for language, content in page.fences if language in ("mermaid", "console"))]
    for text in texts:
        for path in _PATH.findall(re.sub(r"\S+://\S*", "", text)):
            is_ours = path.split("/")[0] in top and "/" in path
            if (is_ours or path.endswith(_SOURCE_SUFFIXES)) and not _exists(path):
                yield f"{path}: no such file in the repository"


def _trees(page: Page) -> Iterator[str]:
    """Blocks of the language `tree`: one name a line, indented by two blanks below its folder, then what it is."""
    for language, content in page.fences:
        folders: list[str] = []
        for line in content.splitlines() if language == "tree" else ():
            depth = (len(line) - len(line.lstrip())) // 2
            name = line.split()[0]
            folders[depth:] = [name.rstrip("/")]
            if not _exists("/".join(folders)):
                yield f"{'/'.join(folders)} in a tree: no such file in the repository"


@cache
def _cli() -> dict[str, set[str]]:
    """Subcommand to its options."""
    from flows.cli import app

    group: Any = typer.main.get_command(app)
    return {
        name: {option for parameter in command.params for option in parameter.opts} | {"--help"}
        for name, command in group.commands.items()
    }


def _commands(page: Page) -> Iterator[str]:
    for text in page.code:
        for line in text.splitlines():
            for used in _ROPEWAY.findall(line):
                yield from _wrong_command(used.split())


def _wrong_command(words: list[str]) -> Iterator[str]:
    names = [words[0]]
    while len(words) > 2 and words[1] == "|":
        words = words[2:]
        names.append(words[0])
    if unknown := [name for name in names if name not in _cli()]:
        yield f"ropeway {unknown[0]}: no such command"
        return
    for word in words:
        option = re.match(r"--[a-z-]+", word)
        if option and option[0] not in _cli()[names[-1]]:
            yield f"ropeway {names[-1]} {option[0]}: no such option"


def _make_targets(page: Page) -> Iterator[str]:
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.M))
    for text in page.code:
        yield from (f"make {name}: no such target" for name in _MAKE.findall(text) if name not in targets)


def _run_modules(page: Page) -> Iterator[str]:
    for text in page.code:
        for name in _MODULE.findall(text):
            if not _is_module(name):
                yield f"python -m {name}: no such module"


def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # of its package
        return False


def _dotted_names(page: Page) -> Iterator[str]:
    for text in page.code:
        yield from (f"{name}: no such module or name in one" for name in _DOTTED.findall(text) if not _resolves(name))


@cache
def _resolves(name: str) -> bool:
    """Whether a dotted name is a module, or something in one."""
    parts = name.split(".")
    if parts[-1] in ("py", "md", "yaml", "yml", "toml", "json"):
        return True  # a file, which `_paths` looks for
    for end in range(len(parts), 0, -1):
        module = ".".join(parts[:end])
        if not _is_module(module):
            continue
        found: Any = importlib.import_module(module) if parts[end:] else None
        for part in parts[end:]:
            if not hasattr(found, part):
                return False
            found = getattr(found, part)
        return True
    return False


def _parameters(page: Page) -> Iterator[str]:
    from data_schemas.params_help import params_help

    known = {param.name for param in params_help()}
    for text in [*_CODE.findall(page.prose), *(content for language, content in page.fences if language != "python")]:
        for name in _PARAM.findall(text):
            is_file = name.split(".")[-1] in ("py", "md", "yaml", "json", "jsonl", "safetensors")
            if not is_file and not any(param == name or param.startswith((f"{name}.", f"{name}[]")) for param in known):
                yield f"{name}: no such parameter"
