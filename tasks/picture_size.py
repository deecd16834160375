"""A PNG made small enough to travel inside an artifact, where a browser loads it with the page."""

from __future__ import annotations

import io

MOST_BYTES = 150_000  # 200 kB once they are written as text
_COLOURS = 256
_SMALLEST_WIDTH = 400


def light_png(png: bytes, most_bytes: int = MOST_BYTES) -> bytes:
    """The picture with a palette of colours, and then with fewer pixels, until it has at most `most_bytes`."""
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
