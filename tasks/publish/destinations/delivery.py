"""Copy a finished release to all of its destinations."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from data_schemas.errors import UserError
from data_schemas.params import PublishParams
from data_schemas.progress import ProgressCallback, message
from tasks.publish.destinations.address import place_at
from tasks.publish.destinations.hub import HubPlace
from tasks.publish.destinations.pointer import Pointed, hold_back, how_to_serve, serve_published
from tasks.publish.destinations.version import Version, read_version


@dataclass(frozen=True)
class Delivery:
    """One destination that has the release. `location` is its folder, URI or page; `is_new` is False if nothing was written.

    `why_not_served`: why another version is served there, such as a rollback or a change on the hub; "" if this one is.
    """

    destination: str
    location: str
    is_new: bool
    why_not_served: str = ""


def check_destinations(publish: PublishParams) -> None:
    """UserError, before any work, for a destination that is invalid, contains a secret, or lacks its package or token.

    A token from `publish.token_secret` is not checked, because only the Prefect task can read it.
    """
    for destination in publish.destinations:
        place = place_at(destination)
        if isinstance(place, HubPlace) and publish.token_secret is None:
            place.require_token()


def deliver(
    name: str,
    folder: Path,
    publish: PublishParams,
    progress: ProgressCallback,
    token: SecretStr | None = None,
    *,
    is_to_serve: bool = True,
) -> list[Delivery]:
    """Copy the verified release in `folder` to every destination and make it current there, unless it was rolled back there.

    If not `is_to_serve`, `current` does not move there. The hub, which serves whatever is on `main`, then gets a pull request if
    those were asked for, and otherwise nothing.

    If a destination fails, its `current` stays as it was and the others still get the release. At the end a UserError names those
    that failed and why; publishing again completes them and leaves the others untouched. `token` is the content of
    `publish.token_secret`, for the hub.
    """
    version = read_version(name, folder)
    deliveries, failed = [], []
    for destination in publish.destinations:
        try:
            delivery = _deliver(version, destination, publish, token, is_to_serve)
        except UserError as error:
            failed.append(str(error).rstrip("."))
            progress(message(f"publish: not at {destination}: {error}"))
            continue
        deliveries.append(delivery)
        left = f"; {why}" if (why := delivery.why_not_served) else ""
        done = "copied to and checked at" if delivery.is_new else "unchanged at"
        progress(message(f"publish: {done} {delivery.location}{left}"))
    if failed:
        raise UserError(
            f"{name} {version.digest} is in the storage, but not at {len(failed)} of {len(publish.destinations)} destinations, which "
            f"still serve what they served before: correct this and publish again, which copies only what is missing: {'; '.join(failed)}."
        )
    return deliveries


def _deliver(
    version: Version, destination: str, publish: PublishParams, token: SecretStr | None, is_to_serve: bool
) -> Delivery:
    place = place_at(destination, token)
    if isinstance(place, HubPlace):
        if not is_to_serve and not publish.hub_pull_request:
            return Delivery(destination, place.uri, False, "this version is not to be served, and `main` would serve it")
        put = place.put(version, pull_request=publish.hub_pull_request, private=publish.hub_private)
        other = f"`main` has another version and was not changed: load this one by its tag, revision={version.digest}, or merge it there"
        return Delivery(destination, put.url, put.is_new, "" if put.is_served else other)
    is_new = place.put(version)
    pointed = (serve_published if is_to_serve else hold_back)(place, version.name, version.digest)
    left = {
        Pointed.ROLLED_BACK: how_to_serve(destination, version.name, version.digest),
        Pointed.HELD_BACK: "this version is not to be served",
    }.get(pointed, "")
    return Delivery(destination, f"{place.uri}/{version.key}", is_new or pointed is Pointed.MOVED, left)
