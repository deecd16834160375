"""The site builds as `make docs` builds it, and a dead link or anchor fails the build."""

import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.page_names import ROOT

DEAD = ["docs/gone.md", "docs/index.md#gone-there", "#gone-here", "gone.json", "gone.png"]


def build(root: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """The command of the Makefile, with another place for what it writes."""
    [options] = re.findall(r"sphinx (.*) \. site$", (ROOT / "Makefile").read_text(), re.M)
    words = options.replace("site/.doctrees", str(site / ".doctrees")).split()
    return subprocess.run([sys.executable, "-m", "sphinx", *words, ".", str(site)], cwd=root, capture_output=True, text=True)


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    built = build(ROOT, tmp_path / "site")
    assert built.returncode == 0, built.stderr
    assert "docs/architecture.html" in (tmp_path / "site/README.html").read_text()
    assert "url=README.html" in (tmp_path / "site/index.html").read_text()
    assert 'class="mermaid"' in (tmp_path / "site/docs/architecture.html").read_text()


@pytest.mark.slow
def test_a_dead_link_fails_the_build(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    shutil.copy(ROOT / "docs/conf.py", tmp_path / "docs")
    menu = runpy.run_path(str(ROOT / "docs/conf.py"))["MENU"]
    for page in " ".join(menu.values()).split():
        (tmp_path / page).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / f"{page}.md").write_text(f"# {page}\n")
    (tmp_path / "README.md").write_text("# Title\n\n[fine](docs/index.md)\n")
    fine = build(tmp_path, tmp_path / "fine")
    assert fine.returncode == 0, fine.stderr

    (tmp_path / "README.md").write_text("# Title\n\n" + "".join(f"{'!' * dead.endswith('png')}[x]({dead})\n" for dead in DEAD))
    broken = build(tmp_path, tmp_path / "broken")
    assert broken.returncode != 0
    for dead in DEAD:
        assert re.search(rf"WARNING.*{re.escape(dead.split('#')[-1])}", broken.stderr), f"{dead} was not told:\n{broken.stderr}"
