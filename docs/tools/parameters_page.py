"""Write docs/parameters.md from the parameter models: `python docs/tools/parameters_page.py`."""

import sys
from itertools import groupby
from pathlib import Path

PAGE = Path(__file__).parents[1] / "parameters.md"
sys.path.insert(0, str(PAGE.parents[1]))

from data_schemas.params_help import ParamHelp, params_help  # noqa: E402

HEAD = """# Parameters

<!-- Written by docs/tools/parameters_page.py. Change the descriptions in data_schemas/, then run it again. -->

Every value that a YAML file, `--set` or the run form may hold. `ropeway params training` prints one group in a terminal,
and `ropeway schema` the JSON Schema that editors complete and check YAML with.
`[]` stands for one entry of a list. A default of *empty* means that the program chooses, as the description says.
"""


def parameters_page() -> str:
    """The whole page: one section for each group of `PipelineParams`, one table row for each parameter."""
    sections = [HEAD]
    for group, params in groupby(params_help(), key=_group):
        rows = [f"| `{param.name}` | {_cell(param.kind)} | {_default(param)} | {_cell(param.meaning)} |" for param in params]
        sections.append(
            f"## {group}\n\n| name | values | default | meaning |\n| --- | --- | --- | --- |\n" + "\n".join(rows) + "\n"
        )
    return "\n".join(sections)


def _group(param: ParamHelp) -> str:
    first, dot, _ = param.name.partition(".")
    return first.removesuffix("[]") if dot else "run"


def _default(param: ParamHelp) -> str:
    if param.default == "(required)":
        return "required"
    value = param.default[1:-1].replace("\n", "\\n")
    return f"*{value}*" if value in ("empty", "none") else f"`{value}`".replace("|", r"\|")


def _cell(text: str) -> str:
    return text.replace("|", r"\|").replace("<", "&lt;").replace("*", r"\*") if "`" not in text else _outside_code(text)


def _outside_code(text: str) -> str:
    """Escape what Markdown would read as markup, except inside backticks; a bar ends a table cell even there."""
    pieces = text.split("`")
    escaped = [piece.replace("|", r"\|") if i % 2 else _cell(piece) for i, piece in enumerate(pieces)]
    return "`".join(escaped)


if __name__ == "__main__":
    PAGE.write_text(parameters_page(), encoding="utf-8")
    print(PAGE)
