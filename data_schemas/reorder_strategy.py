"""The names of the orders of retrieved passages; `data_schemas.reorder` says what each means."""

from typing import Literal

ReorderStrategy = Literal["important_first_last", "reverse_rank", "calibrated", "none"]
