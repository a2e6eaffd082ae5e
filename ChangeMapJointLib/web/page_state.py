"""What the page says of a run before anything is clicked, as plain values of trame's shared state."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from ChangeMapJointLib import __version__
from ChangeMapJointLib.change.sections import BY_MAP, OPERATING_POINT_HINTS
from ChangeMapJointLib.core.hu import FULL_SCALE_HU, WINDOWS_HU
from ChangeMapJointLib.core.sample_pair import NOTICE
from ChangeMapJointLib.export.unseen import UNSEEN_TITLE, unseen_of_records
from ChangeMapJointLib.io import run_files
from ChangeMapJointLib.io.reading_file import VERDICTS
from ChangeMapJointLib.scene.keys import FLICKER_KEY, KEY_HELP, KEYS
from ChangeMapJointLib.scene.nodes import CURRENT, PRIOR
from ChangeMapJointLib.web.pictures import LAYOUTS, VIEWS
from ChangeMapJointLib.web.settings import CHECKS, DEFAULT_OPACITY, LOWEST_THRESHOLD, Settings
from ChangeMapJointLib.web.shown_run import ShownRun

VERDICT_WORDS = {
    "good": "Registration: good",
    "look closely": "Registration: look closely",
    "do not use": "Registration: do not use, it failed",
}


def first_state() -> dict[str, Any]:
    """Return the state of a page without a run."""
    return {
        "trame__title": "ChangeMapJoint viewer",
        "version": __version__,
        "views": list(VIEWS),
        "layouts": {name: list(views) for name, views in LAYOUTS.items()},
        "layout_name": "check",
        "settings": asdict(Settings()),
        "checks": [{"key": key, "title": title} for key, title in CHECKS.items()],
        "windows": [
            {"key": key, "title": key.capitalize(), "level": level, "width": width}
            for key, (level, width) in WINDOWS_HU.items()
        ],
        "verdicts": list(VERDICTS),
        "keys_help": [[key.format(key=FLICKER_KEY.upper()), words] for key, words in KEY_HELP],
        "keys": dict(KEYS),
        "flicker_key": FLICKER_KEY,
        "lowest": LOWEST_THRESHOLD,
        "full_scale": FULL_SCALE_HU,
        "default_opacity": DEFAULT_OPACITY,
        "synthetic_notice": NOTICE,
        **{key: [] for key in ("maps", "lists", "rows", "sections")},
        **{key: {} for key in ("run", "reviews", "legend", "labels", "study", "slices")},
        **dict.fromkeys(("error", "selected", "values_text", "reader_verdict", "message"), ""),
        "unfolded": [],
    }


def facts_of(shown: ShownRun, *, study: bool) -> dict[str, Any]:
    """Return what the page says of a run.

    Args:
        shown: the run on screen.
        study: it is read in a reading session, which says nothing of what was found.
    """
    run, quality = shown.run, shown.run.records["quality"].get("quality", {})
    verdict = str(quality.get("verdict") or "")
    unseen = () if study else unseen_of_records(run.records)
    return {
        "name": "" if study else run.folder.resolve().name,
        "verdict": verdict,
        "verdictWords": VERDICT_WORDS.get(verdict, verdict),
        "reasons": [str(reason) for reason in quality.get("reasons", [])],
        "synthetic": shown.synthetic,
        "notes": list(run.notes),
        "unseenTitle": UNSEEN_TITLE,
        "unseen": list(unseen),
        "hasMap": bool(shown.maps),
        "hasFindings": shown.has_findings and not study,
        "hasReport": not study and (run.folder / run_files.REPORT).is_file(),
        "dates": {"current": run.date("reference"), "prior": run.date("template")},
        "hasPrior": run.template is not None,
        "study": study,
    }


def list_choices(shown: ShownRun) -> list[dict[str, str]]:
    """Return the lists that a run has, with their titles and what they mean."""
    hints: dict[str, str] = dict(OPERATING_POINT_HINTS.items()) | {BY_MAP: "regions of the map at the threshold"}
    titles: dict[str, str] = {**{key: key.capitalize() for key in OPERATING_POINT_HINTS}, BY_MAP: "By the map"}
    return [{"key": key, "title": titles[key], "hint": hints[key]} for key in shown.lists.choices]


def view_labels(shown: ShownRun) -> dict[str, dict[str, Any]]:
    """Return what stands on each view: which scan it is, its date, and the letters of the patient's sides."""
    settings = shown.settings
    current, prior = shown.run.date("reference"), shown.run.date("template")
    acquired = settings.prior == "acquired" and shown.run.template is not None
    how = ("as acquired, rigidly aligned" if shown.rigid_prior else "as acquired") if acquired else "warped"
    now = ("PRIOR, warped", prior) if settings.flicker else ("CURRENT", current)
    titles = {**dict.fromkeys(CURRENT, now), **dict.fromkeys(PRIOR, (f"PRIOR, {how}", prior))}
    return {
        view: {"title": title, "date": date, "sides": shown.navigation.letters(view)}
        for view, (title, date) in titles.items()
    }


def slices_of(shown: ShownRun) -> dict[str, list[int]]:
    """Return the number of the slice that each view shows, from 1, and how many its scan has."""
    acquired = shown.settings.prior == "acquired" and shown.run.template is not None
    scans = {**dict.fromkeys(CURRENT), **dict.fromkeys(PRIOR, shown.results.template if acquired else None)}
    return {view: list(shown.navigation.slices(view, scan)) for view, scan in scans.items()}
