"""How a stage is seen in Prefect: its progress in the run's log, its result as artifacts."""

import base64
from collections.abc import Callable
from typing import Any

from prefect.artifacts import create_image_artifact, create_markdown_artifact, create_table_artifact
from prefect.logging import get_run_logger

from data_schemas.storage import Artifact


def run_log() -> Callable[[str], None]:
    """Where the current task run's progress goes. Other threads may call the result; only the task's own may ask for it."""
    logger = get_run_logger()

    def tell(line: str) -> None:
        logger.info(line)

    return tell


def show_result(artifact: Artifact) -> None:
    """Log whether the artifact was made or found, and publish its summary as a table."""
    stage = artifact.manifest.stage
    run_log()(f"{stage}: {'found, nothing to do' if artifact.reused else 'done'} ({artifact.digest[:12]})")
    rows = [{"what": name, "value": _cell(value)} for name, value in artifact.manifest.summary.items()]
    create_table_artifact(key=f"{stage}-summary", table=rows, description=f"{stage} {artifact.digest}")


def show_markdown(key: str, text: str) -> None:
    create_markdown_artifact(key=key, markdown=text)


def show_plot(key: str, png: bytes) -> None:
    """Publish a PNG inside the artifact itself, so that it is seen wherever the server runs."""
    data = base64.b64encode(png).decode()
    create_image_artifact(key=key, image_url=f"data:image/png;base64,{data}")


def _cell(value: Any) -> Any:
    return value if isinstance(value, (str, int, float)) else str(value)
