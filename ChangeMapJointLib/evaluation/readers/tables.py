"""Tables of a reader study for its page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ChangeMapJointLib.evaluation.output.tables import NONE, Table
from ChangeMapJointLib.evaluation.readers.log import Arm

ARM_TITLES: Mapping[Arm, str] = {"unaided": "unaided", "sequential": "sequential map", "joint": "joint map"}
TITLES = {
    "seconds": "reading time (s)",
    "seconds_percent": "reading time (%)",
    "recall": "recall",
    "precision": "precision",
    "false_per_case": "false marks per case",
    "merit": "figure of merit",
}


def study_tables(document: Mapping[str, Any]) -> list[Table]:
    """The tables that have rows."""
    tables = (
        _times(document),
        _arms(document),
        _differences(document),
        _tests(document),
        _model(document),
        _marks(document),
    )
    return [table for table in tables if table.rows]


def _times(document: Mapping[str, Any]) -> Table:
    """As Table 1 of the paper."""
    groups = {(g["reader"], g["arm"]): g for g in document["by_reader"]}
    rows = []
    for arm in document["arms"]:
        row = {"arm": ARM_TITLES[arm]}
        for reader in document["readers"]:
            group = groups[reader, arm]
            row[reader] = (
                f"{group['mean_s']:.1f} s [{group['least_s']:.1f}; {group['most_s']:.1f}]" if group["cases"] else NONE
            )
        row["all readers"] = f"{document['by_arm'][arm]['seconds']['value']:.1f} s"
        rows.append(row)
    note = "Mean [minimum; maximum] of the active reading time, without pauses and interruptions."
    return Table("times", "Reading time by reader and arm", note, rows)


def _arms(document: Mapping[str, Any]) -> Table:
    rows = []
    for arm, measures in document["by_arm"].items():
        rows.append(
            {"arm": ARM_TITLES[arm], **{TITLES[name]: _interval(value, name) for name, value in measures.items()}}
        )
    note = (
        "Over all readings, with 95 % bootstrap intervals over readers and cases. Recall: true lesions that were "
        "marked. Precision: lesions hit divided by lesions hit and false marks."
    )
    if document["figure_of_merit"]:
        note += (
            f" Figure of merit: {document['figure_of_merit']}, the chance that a lesion is rated higher than the worst "
            "false mark of a case; mean over readers."
        )
    return Table("arms", "Arms", note, rows)


def _differences(document: Mapping[str, Any]) -> Table:
    rows = [
        {
            "comparison": f"{ARM_TITLES[d['second']]} minus {ARM_TITLES[d['first']]}",
            **{title: _interval(d[name], name, sign=True) for name, title in TITLES.items() if name in d},
        }
        for d in document["differences"]
    ]
    note = "Over the readings that both arms have. An interval that holds 0 does not show a difference."
    return Table("differences", "Differences between arms", note, rows)


def _tests(document: Mapping[str, Any]) -> Table:
    rows = []
    for test in document["time_tests"]:
        row = {
            "reader": test["reader"],
            "comparison": f"{ARM_TITLES[test['second']]} against {ARM_TITLES[test['first']]}",
            "change of mean": f"{test['change_percent']:+.1f} %",
        }
        for name, title in (("rank_sum", "rank-sum"), ("signed_rank", "signed-rank")):
            row[f"{title} p"] = _p(test[name]["p"])
            row[f"{title} p, Holm"] = _p(test[name]["p_holm"])
            row[f"least {title} p"] = _p(test[name]["smallest_p"])
        rows.append(row)
    note = (
        "Two-sided and exact. The rank-sum test is the paper's; it takes the times of both arms as independent. "
        "They are of the same cases, so the signed-rank test fits better. Holm's correction is over all rows. "
        "With few cases the least p that can be reached is large."
    )
    return Table("tests", "Tests of the reading time, each reader alone", note, rows)


def _model(document: Mapping[str, Any]) -> Table:
    model = document["mixed_model"]
    if model is None:
        return Table("model", "", "", [])
    base = ARM_TITLES[model["base"]]
    rows = [
        {
            "arm": ARM_TITLES[effect["arm"]],
            f"reading time, times that of {base}": f"{effect['ratio']:.3f} [{effect['low']:.3f}, {effect['high']:.3f}]",
            "p": _p(effect["p"]),
        }
        for effect in model["effects"]
    ]
    note = (
        f"Logarithm of the reading time by arm{' and number of the session' if model['period'] else ''}, with random "
        f"effects of reader (SD {model['reader_sd']:.2f}) and case (SD {model['case_sd']:.2f}); residual SD "
        f"{model['residual_sd']:.2f}; {model['readings']} readings. " + " ".join(model["notes"])
    )
    return Table("model", "Mixed model of the reading time", note, rows)


def _marks(document: Mapping[str, Any]) -> Table:
    rows = []
    for group in document["by_reader"]:
        if not group["cases"]:
            continue
        row = {
            "reader": group["reader"],
            "arm": ARM_TITLES[group["arm"]],
            "cases": f"{group['cases']}",
            "first mark (s)": _number(group["first_mark_s"], 1),
            "paused (s)": _number(group["paused_s"], 1),
            "overlay shown": f"{100 * group['overlay_share']:.0f} %",
            "marks": f"{group['marks']}",
        }
        if "hit" in group:
            row |= {
                "hit": f"{group['hit']} of {group['lesions']}",
                "false": f"{group['false']}",
                "repeated": f"{group['repeated']}",
                "recall": _number(group["recall"], 2),
                "precision": _number(group["precision"], 2),
                "figure of merit": _number(group["merit"], 3),
            }
        rows.append(row)
    note = (
        "First mark: median time. Paused: mean per case. Repeated: further marks on a lesion that was hit; not counted."
    )
    return Table("marks", "Marks by reader and arm", note, rows)


def _interval(value: Mapping[str, float | None], name: str, *, sign: bool = False) -> str:
    if value["value"] is None:
        return NONE
    digits = 1 if name.startswith("seconds") else 3 if name == "merit" else 2
    form = f"{{:{'+' if sign else ''}.{digits}f}}"
    text = form.format(value["value"])
    if value["low"] is None:
        return text
    return f"{text} [{form.format(value['low'])}, {form.format(value['high'])}]"


def _number(value: float | None, digits: int) -> str:
    return NONE if value is None else f"{value:.{digits}f}"


def _p(value: float | None) -> str:
    return NONE if value is None else "< 0.0001" if value < 1e-4 else f"{value:.4f}"


def frames(document: Mapping[str, Any]) -> dict[str, Sequence[Mapping[str, Any]]]:
    """The complete tables as rows, by name of their CSV file."""
    arms = [
        {"arm": arm, **{f"{name}{'' if k == 'value' else '_' + k}": v for name, f in m.items() for k, v in f.items()}}
        for arm, m in document["by_arm"].items()
    ]
    tests = [
        {
            **{k: t[k] for k in ("reader", "first", "second", "change_percent")},
            **{
                f"{name}_{k}": t[name][k] for name in ("rank_sum", "signed_rank") for k in ("p", "p_holm", "smallest_p")
            },
        }
        for t in document["time_tests"]
    ]
    return {"by_reader": document["by_reader"], "by_arm": arms, "time_tests": tests}
