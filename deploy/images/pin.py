"""Name the images in the manifests by registry and digest, and check that all are.

    python deploy/images/pin.py cpu=REGISTRY/ropeway-cpu@sha256:... gpu=REGISTRY/ropeway-gpu@sha256:...
    python deploy/images/pin.py --check          # status 1, and each place, where an image is named by a tag

A tag can be moved to another image; a digest cannot. `docker push` prints the digest.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

DEPLOY = Path(__file__).resolve().parents[1]
FOLDERS = ("kubernetes", "ray", "gcs-redis")
_NAMED = re.compile(r"(?:[\w.:-]+/)*ropeway-(cpu|gpu)(?:@sha256:[0-9a-f]{64}|:[\w.-]+)(?![\w./-])")
_BY_DIGEST = re.compile(r"\S+@sha256:[0-9a-f]{64}")
_IMAGE = re.compile(r"""["']?\b(?:\w+_)?image["']?: *["']?([^\s"',}]+)""")


def manifests(deploy: Path) -> list[Path]:
    """The files that name images. On kind the image is loaded under its tag, without a registry."""
    return sorted(path for folder in FOLDERS for path in (deploy / folder).glob("*") if path.suffix in (".yaml", ".json"))


def pin(deploy: Path, images: dict[str, str]) -> int:
    """Replace every name of `images` (device to image); returns how many places changed."""
    changed = 0
    for path in manifests(deploy):
        text = path.read_text()
        new = _NAMED.sub(lambda found: images.get(found[1], found[0]), text)
        changed += sum(images[found[1]] != found[0] for found in _NAMED.finditer(text) if found[1] in images)
        if new != text:
            path.write_text(new)
    return changed


def unpinned(deploy: Path) -> list[str]:
    """FILE:LINE: IMAGE for each image that is named without a digest."""
    found = []
    for path in manifests(deploy):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            names = {match[0] for match in _NAMED.finditer(line)} | {match[1] for match in _IMAGE.finditer(line)}
            names = {name for name in names if not name.startswith("{")}  # a placeholder, or a mapping
            found += [
                f"{path.relative_to(deploy)}:{number}: {name}" for name in sorted(names) if not _BY_DIGEST.fullmatch(name)
            ]
    return found


def main(arguments: list[str]) -> int:
    if arguments == ["--check"]:
        problems = unpinned(DEPLOY)
        print("\n".join(problems) or "every image is named by its digest")
        return bool(problems)
    images = dict(pair.split("=", 1) for pair in arguments if "=" in pair)
    if not images or not set(images) <= {"cpu", "gpu"} or not all(map(_BY_DIGEST.fullmatch, images.values())):
        print(__doc__, file=sys.stderr)
        return 2
    print(f"{pin(DEPLOY, images)} places changed")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
