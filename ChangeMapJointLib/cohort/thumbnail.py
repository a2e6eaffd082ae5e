"""The small picture of a pair: the first one of its report."""

from __future__ import annotations

import base64
import binascii
import io
import re
from pathlib import Path

from ChangeMapJointLib.io.write import atomic_path

HEIGHT = 110  # pixels
_PICTURE = re.compile(r'src="data:image/(?:png|jpeg);base64,([A-Za-z0-9+/=]+)"')


def write_thumbnail(report: Path, path: Path) -> bool:
    """Write the first picture of a report in small: the chest from the front with its changes, or both scans.

    Args:
        report: the page of a run.
        path: the PNG file.

    Returns:
        Whether the report has a picture.

    Raises:
        InputError: the file cannot be written.
    """
    from PIL import Image

    try:
        found = _PICTURE.search(report.read_text("utf-8", errors="replace"))
        if found is None:
            return False
        picture = Image.open(io.BytesIO(base64.b64decode(found[1], validate=True))).convert("RGB")
    except (OSError, binascii.Error):
        return False
    width = max(round(picture.width * HEIGHT / picture.height), 1)
    small = picture.resize((width, HEIGHT), Image.Resampling.LANCZOS)
    with atomic_path(path) as temporary:
        small.quantize(64).save(temporary, "PNG", optimize=True)
    return True
