"""The site builds as `make docs` builds it, and a dead link or anchor fails the build."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.page_names import ROOT


def build(root: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """The command of the Makefile, with another place for what it writes."""
    [options] = re.findall(r"sphinx (.*) \. site$", (ROOT / "Makefile").read_text(), re.M)
    command = [
        sys.executable,
        "-m",
        "sphinx",
        *options.replace("site/.doctrees", str(site / ".doctrees")).split(),
        ".",
        str(site),
    ]
    return subprocess.run(command, cwd=root, capture_output=True, text=True)


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    built = build(ROOT, tmp_path / "site")
    assert built.returncode == 0, built.stderr
    assert "architecture.html" in (tmp_path / "site/README.html").read_text()
    assert 'url=README.html"' in (tmp_path / "site/index.html").read_text()
    assert '<pre  class="mermaid">' in (tmp_path / "site/docs/architecture.html").read_text()


@pytest.mark.parametrize(
    "dead", ["[x](docs/gone.md)", "[x](docs/index.md#gone)", "[x](#gone)", "[x](gone.json)", "![x](gone.png)"]
)
def test_a_dead_link_fails_the_build(dead: str, tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    shutil.copy(ROOT / "docs/conf.py", tmp_path / "docs")
    menu = re.findall(r'^ +(?:"[^"]*": )?\(?"([^"]*)"', (ROOT / "docs/conf.py").read_text(), re.M)
    for page in " ".join(menu).split():
        (tmp_path / page).parent.mkdir(exist_ok=True)
        (tmp_path / f"{page}.md").write_text(f"# {page}\n")
    (tmp_path / "README.md").write_text("# Title\n\n[fine](docs/index.md)\n")
    fine = build(tmp_path, tmp_path / "site")
    assert fine.returncode == 0, fine.stderr
    (tmp_path / "README.md").write_text(f"# Title\n\n{dead}\n")
    broken = build(tmp_path, tmp_path / "site")
    assert broken.returncode != 0
    assert "gone" in broken.stderr
