"""A stage in Prefect: lines in the run's log, and Prefect artifacts that show its progress and its result.

Nothing here stops a stage. If something cannot be shown, for example while the server is away, the log says so once.
"""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Callable, Iterable
from typing import Any
from uuid import UUID

from prefect.artifacts import Artifact as PrefectArtifact
from prefect.artifacts import ImageArtifact, MarkdownArtifact, ProgressArtifact, TableArtifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactUpdate
from prefect.logging import get_run_logger

from data_schemas.params import PipelineParams
from data_schemas.progress import ProgressEvent, describe, message
from data_schemas.quantities import duration
from data_schemas.storage import Artifact
from ray_jobs.submit.submission import is_submitted
from tasks.prefect_tasks.pages.elements import Facts, Page, Picture, Share, Shown
from tasks.prefect_tasks.run_labels import extension_of


class Observer:
    """Log and Prefect artifacts of the current task run. Make it in the task's own thread; other threads may use it."""

    def __init__(self) -> None:
        self._logger = get_run_logger()
        self._ids: dict[str, UUID] = {}
        self._has_failed = False

    def tell(self, event: ProgressEvent) -> None:
        """Write the event in words to the run's log."""
        self._logger.info(describe(event))

    def show(self, shown: Shown) -> bool:
        """Make a Prefect artifact, or replace the one that this task run made under the same key. False if that failed."""
        try:
            artifact = _as_artifact(shown)
            if known := self._ids.get(shown.key):
                update = ArtifactUpdate(data=artifact.format(_sync=True))  # type: ignore[call-arg]  # added by a decorator
                get_client(sync_client=True).update_artifact(known, update)
            else:
                made: Any = artifact.create(_sync=True)  # type: ignore[call-arg]
                self._ids[shown.key] = made.id
        except Exception as error:
            self._say_once(f"{shown.key} is not shown: {error or type(error).__name__}")
            return False
        return True

    def show_all(self, several: Iterable[Shown]) -> None:
        """Show one after the other and stop at the first failure, so that a server that is away is waited for only once."""
        try:
            for shown in several:
                if not self.show(shown):
                    return
        except Exception as error:  # a picture that cannot be drawn must not end the stage
            self._say_once(f"the result is not shown in full: {error or type(error).__name__}")

    def _say_once(self, line: str) -> None:
        if not self._has_failed:
            self._logger.warning(" ".join(line.split())[:300])
        self._has_failed = True


def observed(
    stage: str,
    params: PipelineParams,
    make: Callable[[Observer], Artifact],
    shown: Callable[[Artifact], Iterable[Shown]],
) -> Artifact:
    """The artifact that `make` makes or finds. The log says what ran where and for how long; `shown` gives the pages of the result."""
    observer = Observer()
    observer.tell(message(f"{stage}: {extension_of(params.model)}, {_where(stage, params)}, storage {params.storage}"))
    started = time.perf_counter()
    artifact = make(observer)
    seconds = time.perf_counter() - started
    observer.tell(message(f"{stage}: {'found' if artifact.reused else 'made'} in {duration(seconds)}: {artifact.location}"))
    observer.show_all([Facts(f"{stage}-summary", _facts(artifact, seconds), f"{stage} of {extension_of(params.model)}")])
    observer.show_all(shown(artifact))
    return artifact


def _task_run_name(parameters: dict[str, Any]) -> str:
    """Such as `finetune demo-base 512 -> 2048 yarn`, for tasks that take `params`."""
    from prefect.runtime import task_run

    return f"{task_run.task_name} {extension_of(parameters['params'].model)}"


task_run_name: Callable[..., str] = _task_run_name  # Prefect passes `parameters` by that name


def _where(stage: str, params: PipelineParams) -> str:
    if stage == "publish" or params.ray.address == "local":
        return "on this machine"
    return f"{'as a job' if is_submitted(params.ray) else 'on Ray'} at {params.ray.address}"


def _facts(artifact: Artifact, seconds: float) -> dict[str, Any]:
    """The single values of the manifest's summary. Its lists and tables have their own pages."""
    made = {"this run": f"{'found' if artifact.reused else 'made'} in {duration(seconds)}", "artifact": artifact.location}
    return made | {
        name: _cell(value) for name, value in artifact.manifest.summary.items() if not isinstance(value, (list, dict))
    }


def _cell(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.6g}"


def _as_artifact(shown: Shown) -> PrefectArtifact:
    match shown:
        case Page(key, text):
            return MarkdownArtifact(key=key, markdown=text)
        case Picture(key, png):
            # Inside the artifact itself, so that any browser of the server can show it.
            return ImageArtifact(key=key, image_url=f"data:image/png;base64,{base64.b64encode(light_png(png)).decode()}")
        case Share(key, share, title):
            return ProgressArtifact(key=key, progress=round(100 * min(1.0, share), 1), description=title)
        case Facts(key, values, title):
            rows = [{"what": name, "value": value} for name, value in values.items()]
            return TableArtifact(key=key, table=rows, description=title)


MOST_BYTES = 150_000  # 200 kB as base64
_COLOURS = 256
_SMALLEST_WIDTH = 400


def light_png(png: bytes, most_bytes: int = MOST_BYTES) -> bytes:
    """The PNG with fewer colours, then with fewer pixels, until it has at most `most_bytes` or is `_SMALLEST_WIDTH` wide."""
    if len(png) <= most_bytes:
        return png
    from PIL import Image

    picture = Image.open(io.BytesIO(png)).convert("RGB")
    while True:
        lighter = io.BytesIO()
        picture.quantize(_COLOURS, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(
            lighter, "PNG", optimize=True
        )
        if lighter.tell() <= most_bytes or picture.width <= _SMALLEST_WIDTH:
            return lighter.getvalue()
        picture = picture.resize((picture.width * 3 // 4, picture.height * 3 // 4), Image.Resampling.LANCZOS)
