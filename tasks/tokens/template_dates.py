"""Chat templates that write today's date, such as Llama 3.2's and gpt-oss's, with a fixed one: else each day has other rows and prompts."""

from __future__ import annotations

# The forms that published templates ask for.
_DATES = {"%d %b %Y": "26 Jul 2024", "%Y-%m-%d": "2024-07-26", "%d %B %Y": "26 July 2024", "%B %d, %Y": "July 26, 2024"}
_FIXED_DATE = f"{{%- macro strftime_now(format) -%}}{{{{ {_DATES!r}.get(format, '2024-07-26') }}}}{{%- endmacro -%}}"


def with_fixed_date(source: str) -> str:
    """The Jinja text of a chat template whose `strftime_now` always gives 26 July 2024; unchanged where it does not ask for the date."""
    return _FIXED_DATE + source if "strftime_now" in source else source
