"""Durations and sizes in the words of every page, table and log line."""


def duration(seconds: float) -> str:
    """Such as `1.5 s`, `12 s`, `3 min 53 s` or `2 h 05 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def data_size(num_bytes: float) -> str:
    """Such as `0.5 kB`, `12.3 MB` or `1.50 GB`, in powers of 1000."""
    if num_bytes >= 1e9:
        return f"{num_bytes / 1e9:,.2f} GB"
    return f"{num_bytes / 1e6:,.1f} MB" if num_bytes >= 1e5 else f"{num_bytes / 1e3:,.1f} kB"
