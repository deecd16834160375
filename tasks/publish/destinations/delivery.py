"""Copying a finished release to all of its destinations."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from data_schemas.errors import UserError
from data_schemas.params import PublishParams
from data_schemas.progress import ProgressCallback, message
from tasks.publish.destinations.address import place_at
from tasks.publish.destinations.hub import HubPlace
from tasks.publish.destinations.pointer import Pointed, how_to_serve, serve_published
from tasks.publish.destinations.version import Version, read_version


@dataclass(frozen=True)
class Delivery:
    """One destination that has the release. `location` is its folder, URI or page; `is_new` is False where nothing was written.

    `why_not_served`: it is there and another version is served: because a rollback left it, or by what somebody did on the hub.
    """

    destination: str
    location: str
    is_new: bool
    why_not_served: str = ""


def check_destinations(publish: PublishParams) -> None:
    """UserError, before any work, for a destination that cannot be one, has a secret in it, or lacks its package or token.

    A token that is to come from `publish.token_secret` is not looked for: only the Prefect task can have it.
    """
    for destination in publish.destinations:
        place = place_at(destination)
        if isinstance(place, HubPlace) and publish.token_secret is None:
            place.require_token()


def deliver(
    name: str, folder: Path, publish: PublishParams, progress: ProgressCallback, token: SecretStr | None = None
) -> list[Delivery]:
    """Copy the verified release in `folder` to every destination and make it the current one there, unless a rollback left it.

    A destination that fails does not keep the others from theirs; its `current` stays as it was. UserError at the end names
    those that failed and why; publishing again completes them and leaves the others untouched. `token` is what
    `publish.token_secret` holds, for the hub.
    """
    version = read_version(name, folder)
    deliveries, failed = [], []
    for destination in publish.destinations:
        try:
            delivery = _deliver(version, destination, publish, token)
        except UserError as error:
            failed.append(str(error).rstrip("."))
            progress(message(f"publish: not at {destination}: {error}"))
            continue
        deliveries.append(delivery)
        left = f"; {why}" if (why := delivery.why_not_served) else ""
        progress(
            message(f"publish: {'copied to and checked at' if delivery.is_new else 'unchanged at'} {delivery.location}{left}")
        )
    if failed:
        raise UserError(
            f"{name} {version.digest} is in the storage, but not at {len(failed)} of {len(publish.destinations)} destinations, which "
            f"serve what they served before; mend this and publish again, which copies only what is missing: {'; '.join(failed)}."
        )
    return deliveries


def _deliver(version: Version, destination: str, publish: PublishParams, token: SecretStr | None) -> Delivery:
    place = place_at(destination, token)
    if isinstance(place, HubPlace):
        put = place.put(version, pull_request=publish.hub_pull_request, private=publish.hub_private)
        other = f"`main` serves another version, and is left so: load this one by its tag, revision={version.digest}, or merge it there"
        return Delivery(destination, put.url, put.is_new, "" if put.is_served else other)
    is_new = place.put(version)
    pointed = serve_published(place, version.name, version.digest)
    left = how_to_serve(destination, version.name, version.digest) if pointed is Pointed.ROLLED_BACK else ""
    return Delivery(destination, f"{place.uri}/{version.key}", is_new or pointed is Pointed.MOVED, left)
