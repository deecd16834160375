"""`ropeway automate`: the automations on the Prefect server at PREFECT_API_URL."""

from __future__ import annotations

from data_schemas.errors import UserError


def set_up(notify: str | None, then: str | None) -> None:
    """Ensure the automations and print their names. UserError without a server, or where a block or deployment is missing."""
    from prefect.settings import PREFECT_API_URL

    from flows.automations import ensure_automations, ensure_chain, ensure_notifications
    from flows.terminal import refuse_unreachable_server

    if not PREFECT_API_URL.value():
        raise UserError("Automations live on a Prefect server: set PREFECT_API_URL to one, such as http://127.0.0.1:4200/api.")
    refuse_unreachable_server()
    names = ensure_automations()
    if notify:
        names += ensure_notifications(notify)
    if then:
        names += ensure_chain(then)
    for name in names:
        print(name)
