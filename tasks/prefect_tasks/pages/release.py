"""A release as pages: its places, what was verified, and which servers compute it as it was trained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from data_schemas.addresses import is_remote
from data_schemas.params import PipelineParams
from data_schemas.quantities import data_size
from data_schemas.storage import Artifact
from tasks.prefect_tasks.pages.elements import Page, markdown_table, plain
from tasks.prefect_tasks.run_labels import extension_of
from tasks.publish.checks import Check
from tasks.publish.destinations.delivery import Delivery
from tasks.publish.standing import Standing, standing

KEY = "release"


def release_pages(
    artifact: Artifact, params: PipelineParams, checks: Sequence[Check], deliveries: Sequence[Delivery]
) -> Iterator[Page]:
    """The release with its places, its checks if this run made any, and its servers."""
    yield Page(KEY, _release(artifact, params, deliveries))
    if checks:
        rows = [(plain(check.name), "ok" if check.ok else "**broken**", plain(check.detail, 400)) for check in checks]
        table = markdown_table(("check", "result", "detail"), rows)
        yield Page(f"{KEY}-checks", f"## Checks of {params.release_name}\n\n{table}\n")
    yield Page(f"{KEY}-serving", _serving(artifact, params))


def _release(artifact: Artifact, params: PipelineParams, deliveries: Sequence[Delivery]) -> str:
    done = artifact.manifest.summary
    status = standing(params, artifact.digest, artifact.path)
    places = [("storage", _link(artifact.location), "found" if artifact.reused else "written and verified")]
    places += [
        (plain(d.destination), _link(d.location), "written and checked" if d.is_new else "unchanged") for d in deliveries
    ]
    return (
        f"## Release {params.release_name}\n\n{extension_of(params.model)}. Version `{artifact.digest}`: "
        f"{done['num_files']:,} files, {data_size(done['num_bytes'])}, of which weights {data_size(done['weights_bytes'])}.\n\n"
        f"{_served(status)}\n\n"
        f"{markdown_table(('place', 'address', 'this run'), places)}\n\n"
        f"`ropeway verify {artifact.location}` verifies it again. In that folder, its model card is `README.md` "
        "and its evaluation is `evaluation/report.html`.\n"
    )


def _served(status: Standing) -> str:
    """Whether it is served; if not, a list of why, what to try, and the command that serves it."""
    first, *more = status.lines()
    listed = "".join(f"\n- {plain(line, 400)}" for line in more)
    return f"**{first}**" + (f"\n{listed}" if listed else "")


def _link(location: str) -> str:
    """A link if a browser can open it, else only the address."""
    return f"[{location}]({location})" if location.startswith(("https://", "http://")) else f"`{location}`"


def _serving(artifact: Artifact, params: PipelineParams) -> str:
    from tasks.publish.serving.table import serving_table

    address = f"./{params.release_name}" if is_remote(artifact.location) else artifact.location
    answers = {True: "yes", False: "**no**", None: "unknown"}
    rows = [
        (
            plain(f"{row.server} {row.version}"),
            answers[row.servable],
            plain(row.reason, 300),
            plain(row.how_known, 300),
            "<br>".join(f"`{command}`" for command in row.commands),
        )
        for row in serving_table(artifact.path, address=address)
    ]
    table = markdown_table(("server", "computes it as trained", "why", "evidence", "how to run it"), rows)
    copy = "" if address == artifact.location else f"\n`{address}` is a copy of `{artifact.location}` on the serving machine.\n"
    return f"## Servers of {params.release_name}\n\n{table}\n{copy}"
