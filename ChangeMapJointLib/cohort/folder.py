"""The cohort's folder: which cohort it belongs to, and a lock, so that one command at a time works on it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path

from ChangeMapJointLib import __version__
from ChangeMapJointLib.cohort.pairs import CohortPair
from ChangeMapJointLib.cohort.place import COHORT, PAIRS
from ChangeMapJointLib.comparison.config import RunConfig
from ChangeMapJointLib.comparison.output import remedy, why_not_writable
from ChangeMapJointLib.comparison.save import without_folders
from ChangeMapJointLib.core.errors import Argument, InputError
from ChangeMapJointLib.core.options import to_mapping
from ChangeMapJointLib.core.process import hold_lock
from ChangeMapJointLib.io.run_files import names_in
from ChangeMapJointLib.io.sources import reason_of
from ChangeMapJointLib.io.write import atomic_path

SCHEMA = "changemap.cohort/1"
LOCK = ".lock"


@contextmanager
def cohort_folder(
    out: Path, pairs: Sequence[CohortPair], config: RunConfig, options_sha256: str, *, overwrite: bool = False
) -> Iterator[None]:
    """Make or open a cohort's folder, and keep other commands out of it inside the block.

    Args:
        out: the folder.
        pairs: the list.
        config: all options.
        options_sha256: their hash.
        overwrite: results of other options may be replaced.

    Raises:
        InputError: it cannot be written, holds anything else than a cohort, a cohort of other options or pairs, or is
            in use.
    """
    try:
        if out.exists() and not out.is_dir():
            raise InputError("is a file", field="out", value=out, expected="a folder", remedy="give another one")
        there = names_in(out) - {LOCK} if out.exists() else set()
        if there and COHORT not in there:
            raise InputError(
                "holds other files than those of a cohort", field="out", value=out, remedy="give another folder"
            )
        out.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"cannot be used ({reason_of(error)})", field="out", value=out, remedy="give another folder"
        ) from error
    reason = why_not_writable(out)
    if reason is not None:
        raise InputError(f"cannot be written ({reason_of(reason)})", field="out", value=out, remedy=remedy(reason))
    with hold_lock(out / LOCK) as held:
        if not held:
            raise InputError(
                "another command works on this cohort", field="out", value=out, remedy="wait until it has ended"
            )
        if COHORT in there:
            _check_same(out, pairs, options_sha256, overwrite=overwrite)
        _write(out, config, options_sha256)
        yield


def _check_same(out: Path, pairs: Sequence[CohortPair], options_sha256: str, *, overwrite: bool) -> None:
    """Check that the folder's cohort is the one of the list.

    Raises:
        InputError: it is another.
    """
    path = out / COHORT
    try:
        content = json.loads(path.read_text("utf-8"))
        schema, earlier = content["schema"], content["options_sha256"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            "is damaged, so that it is not known whose folder this is", field=path, remedy="give another folder"
        ) from error
    if schema != SCHEMA:
        raise InputError(f"found schema {schema!r}", field=path, expected=SCHEMA, remedy="give another folder")
    if overwrite:
        return
    if earlier != options_sha256:
        raise InputError(
            "holds a cohort that was made with other options",
            field="out",
            value=out,
            remedy=("give the same options (cohort.json), another folder, or ", Argument("overwrite", True)),
        )
    folders = names_in(out / PAIRS) if (out / PAIRS).is_dir() else set()
    if folders and not any(pair.id in folders for pair in pairs):
        raise InputError(
            f"holds another cohort: none of its {len(folders)} pairs is in the list",
            field="out",
            value=out,
            remedy=("give another folder, or ", Argument("overwrite", True), " to add these pairs"),
        )


def _write(out: Path, config: RunConfig, options_sha256: str) -> None:
    content = {
        "schema": SCHEMA,
        "research_use_only": "Research use, not a medical device.",
        "opened": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "version": __version__,
        "options_sha256": options_sha256,
        "configuration": without_folders(to_mapping(config)),
    }
    with atomic_path(out / COHORT) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
