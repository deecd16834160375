"""Records without absolute paths or credentials, so that a release is the same on every machine."""

from __future__ import annotations

import json
import re
from pathlib import Path, PureWindowsPath
from typing import Any
from urllib.parse import urlsplit, urlunsplit

# Keys in which transformers and peft record where a model was on this machine.
_LOCAL_KEYS = {"_name_or_path", "name_or_path", "_commit_hash", "is_local", "local_files_only"}
# Keys that name Python code for a reader to run. A release has no code, and its base was loaded without its own.
CODE_KEYS = {"auto_map"}


def portable(value: Any) -> Any:
    """JSON-like `value`, each absolute path reduced to its last part, each URI without user, password and query."""
    if isinstance(value, dict):
        return {key: portable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [portable(item) for item in value]
    return _portable_text(value) if isinstance(value, str) else value


def _portable_text(text: str) -> str:
    text = text.removeprefix("file://")
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text):
        parts = urlsplit(text)
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    if text.startswith(("/", "~")):
        return Path(text).name or "/"
    if PureWindowsPath(text).is_absolute():
        return PureWindowsPath(text).name
    return text


def rewrite_json(path: Path, **replacements: Any) -> None:
    """Rewrite a JSON object without local keys and keys that name code, with sorted keys.

    `replacements` replace the values of keys that are present.
    """
    content = json.loads(path.read_text(encoding="utf-8"))
    kept = {key: replacements.get(key, value) for key, value in content.items() if key not in _LOCAL_KEYS | CODE_KEYS}
    write_json(path, kept)


def write_json(path: Path, content: Any) -> None:
    """Deterministic JSON: sorted keys, two spaces, a newline at the end."""
    text = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def files_naming(directory: Path, private: tuple[str, ...]) -> list[str]:
    """The JSON, Markdown and HTML files below `directory` that contain one of the absolute paths `private`.

    Not searched: tokenizer.json, and the base's terms, which come from others. A path directly below the root, such as /data, is
    not looked for, because it is a common word.
    """
    paths = [re.escape(path) for path in private if len(Path(path).parts) > 2]
    if not paths:
        return []
    named = re.compile(rf"(?<![\w./-])(?:{'|'.join(paths)})(?![\w-])")
    records = [
        path
        for path in directory.rglob("*")
        if path.suffix in {".json", ".jsonl", ".md", ".html"} and path.name != "tokenizer.json"
    ]
    return sorted(
        path.relative_to(directory).as_posix()
        for path in records
        if named.search(path.read_text(encoding="utf-8", errors="replace"))
    )
