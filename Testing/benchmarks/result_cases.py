"""The tables of ``docs/validation.md`` that list cases with their bars, made from the files in ``results``."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from result_files import load, table
from result_joint import joint

CLASSES = {  # of findings.json, and what the page calls them
    "solid, 6 mm and more": "",
    "solid, 4 to 6 mm": "",
    "solid, 3 to 4 mm": "",
    "part-solid": "",
    "ground glass, 8 mm and more": "",
    "ground glass, 5 to 8 mm": "",
    "diameter changes by less than 5.8 mm": "",
    "juxtapleural, 6 mm and more": "solid or part-solid at the pleura, 6 mm and more",
    "at a vessel": "",
}


# -- the list of findings -------------------------------------------------------------------
def findings() -> str:
    """What the list finds at two operating points, by class, and what is among the candidates."""
    (found,) = load("findings").values()
    nulls = found["null_pairs"]

    def head(name: str) -> str:
        point = found[name]
        low, high = point["false_per_scan_interval"]
        false = round(point["false_per_null_pair"] * nulls)
        count = f"{point['false_per_scan']:.2f} false per scan ({low:.2g} to {high:.2f})"
        return f"*{name}*: {count}, {false} in {nulls} null pairs"

    def cells(key: str, name: str, more: Sequence[str] = ("", "")) -> list[str]:
        standard, sensitive = (found[point]["recall"][key] for point in ("standard", "sensitive"))
        of = f"{standard[0]} of {standard[1]} ({standard[2]:.2f} to {standard[3]:.2f})"
        return [
            name,
            of + more[0],
            f"{sensitive[0]} ({sensitive[2]:.2f} to {sensitive[3]:.2f})" + more[1],
            str(found["found_among_candidates"][key][0]),
        ]

    right = [f", kind right in {found[point]['kind_right'][0]}" for point in ("standard", "sensitive")]
    rows = [cells(key, name or key) for key, name in CLASSES.items()]
    return table(
        ["class", head("standard"), head("sensitive"), "among the candidates"], [*rows, cells("all", "all", right)]
    )


# -- registration, rigid alignment, lungs --------------------------------------------------
def registration() -> str:
    """The registration against its bars: the real pair, real motion, time, lesions, trust, cost."""
    sides = [side["changemap sequential"] for side in load("follow_up").values()]
    rounding = max(side["landmark_rounding_mm"] for side in load("follow_up").values())

    def both(key: str) -> str:
        return " and ".join(f"{side[key]:.2f}" for side in sides)

    real = load("real_motion")["summary"]
    moved = real["ChangeMapJoint"]["judged_only"]
    count = next(int(text.split()[-1]) for text in moved["meets"].values())
    folds = moved["folding_percent"][2]
    peers = load("registration")["known20mm"]["methods"]
    ours, greedy = peers["ChangeMapJoint"], peers["greedy NCC 2x2x2"]
    aware = load("change_aware")["ablation"]["settings"]["change_hu 100"]
    kept = aware["preserved_median_10_90"]
    listed = sum(side["listed"] for side in sides)
    rows = [
        (
            "the real follow-up pair (one right lung, 35 mm apart), both directions: 50 landmarks; surfaces of the "
            "lungs by masks that no method sees; rigid stage",
            f"landmarks {both('mean_mm')} mm (95th percentile {both('p95_mm')}); surfaces {both('surface_p95_mm')} mm "
            f"(95th percentile); rigid {both('rigid_above_best_mm')} mm above the best rigid motion; "
            f"{listed or 'no'} finding{'s' if listed > 1 else ''} listed",
            f"1.05 (1.9) mm, but the landmarks are rounded to voxels, which alone leaves {rounding:.2f} mm; 1.5; 0.5",
            "`follow_up.py DATA`",
        ),
        (
            f"{real['ChangeMapJoint']['pairs']} pairs that move as real patients breathed; figures are those of the "
            f"{count} whose motions chose nothing: mean (95 % interval over patients), commit "
            f"{real['metadata']['commit']}",
            f"mean error {_spread(moved['mean_mm'])} mm, 95th percentile {_spread(moved['p95_mm'])} mm, surface "
            f"{_spread(moved['surface_p95_mm'])} mm; {'no folding' if folds == 0 else f'{folds:g} % folded'}; lung "
            f"Dice {moved['lung_dice'][0]:.3f}",
            "0.45; 1.3; 1.2; none; 0.99",
            "`real_motion.py DATA`",
        ),
        (
            "known20mm beside picsl-greedy NCC 2x2x2 in one run",
            f"{ours['wall_s'] / greedy['wall_s']:.2f} times its time ({ours['wall_s']:.1f} of "
            f"{greedy['wall_s']:.1f} s), {ours['peak_memory_mb'] / 1000:.1f} GB; greedy {greedy['tre_mean_mm']:.2f} mm",
            "0.3 times, 3 GB",
            "`make peers DATA=...`",
        ),
        (
            f"{aware['changed_lesions']} changed lesions of 6 to 16 mm, six pairs",
            f"centres {aware['centre_median_mm']:.2f} mm off in the median, {aware['centre_max_mm']:.2f} mm at most; "
            f"volume kept to {kept['grown'][0]:.2f} (grown), {kept['shrunk'][0]:.2f} (shrunk)",
            "1 mm; 0.9 to 1.1",
            "`change_aware.py DATA`",
        ),
        *_trust_and_cost(),
    ]
    return table(["case", "result", "bar", "command"], rows)


def _trust_and_cost() -> list[tuple[str, str, str, str]]:
    trust = load("trust_calibration")["with keypoints"]
    spoilt = [way["doubted_of_those_above_3mm"] for name, way in trust["by_way"].items() if name != "default"]
    own, slopes = trust["by_way"]["default"], load("scaling")["voxels"]["slopes"]
    return [
        (
            "trust: four patients and motions not used for its calibration; registrations spoilt on purpose, and the "
            "product's own",
            f"spoilt: of errors above 3 mm {_percent(min(spoilt))} to {_percent(max(spoilt))} % have a trust below "
            f"0.5, by way of spoiling. All together {_percent(trust['doubted_of_those_above_3mm'])} %. Own: "
            f"{_percent(own['doubted_of_those_above_3mm'])} % of the few errors above 3 mm, and "
            f"{_percent(own['doubted_of_those_below_1mm'])} % of those below 1 mm",
            "90 %, 5 %",
            "`trust_calibration.py DATA`",
        ),
        (
            "cost from 1 to 8 times the voxels",
            f"slope {slopes['wall_s']:.2f} (wall), {slopes['cpu_s']:.2f} (CPU)",
            "1.1",
            "`scaling.py DATA`",
        ),
    ]


def _spread(values: Sequence[float]) -> str:
    middle, low, high = values
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def rigid() -> str:
    """Rigid alignment of right and wrong pairs, lungs, and scans that are too large."""
    margins = [entry for name, entry in load("rigid_robustness").items() if name.startswith("margins")]
    right, wrong = ([entry[side] for entry in margins] for side in ("right", "wrong"))
    refused = sum(n for e in wrong for verdict, n in e["verdicts"].items() if verdict.startswith("refused"))
    accepted = sum(e["verdicts"].get("accepted", 0) for e in right)
    count = [sum(entry["count"] for entry in entries) for entries in (right, wrong)]
    native, masks = load("native_scans"), load("lung_variants")["summary"]
    litres = [scan["right_l"] + scan["left_l"] for scan in native.values()]
    errors = [scan["tre_mm"] for scan in native.values()]
    listed, air = (sum(scan[key] for scan in native.values()) for key in ("findings", "outside_air_ml"))
    volumes = max(abs(ratio - 1) for ratio in masks["volume_ratio_of_paddings"])
    below = masks["below_0.98"]
    cut = [entry for entry in below if entry.startswith("followup_lung/")]  # volumes that cut through their one lung
    whole = f"; {', '.join(entry for entry in below if entry not in cut)}" if len(cut) < len(below) else ""
    dices = [dice for entry in load("lung_variants").values() for dice in entry.get("dice", {}).values()]
    least = min(d for d in dices if isinstance(d, float) and d >= 0.98)
    rows = [
        (
            f"rigid alignment of {count[0]} pairs of one chest, voxels of 0.7 to 5 mm, thick against thin: moved, "
            "turned, breathed, noise, halves, one lung filled; known20mm, POPI, one real follow-up",
            f"{'all' if accepted == count[0] else accepted} accepted; vessels agree, beyond chance, by at least "
            f"{min(e['vessels']['lowest'] for e in right):.2f}",
            "accepted (0.45)",
            "`rigid_robustness.py DATA`",
        ),
        (
            f"rigid alignment of {count[1]} pairs that are not of one chest: another patient, mirrored, turned, upside "
            "down, other halves, an abdomen",
            f"{'all' if refused == count[1] else refused} refused; vessels agree by at most "
            f"{max(e['vessels']['highest'] for e in wrong):.2f}",
            "refused",
            "`rigid_robustness.py DATA`",
        ),
        (
            f"{len(native)} native scans (whole field of view, 2.5 to 3 mm; gowns, arms, tables): lungs, and the "
            "sequential method against a copy moved by 20 mm of breathing",
            f"{min(litres):.1f} to {max(litres):.1f} l, {f'{air:.0f} ml of' if air else 'no'} air outside the body; "
            f"{listed or 'no'} finding{'s' if listed > 1 else ''}, lung points to {min(errors):.2f} to "
            f"{max(errors):.2f} mm",
            "2.5 to 7.5 l, none, none",
            "`native_scans.py DATA`",
        ),
        (
            f"lung masks of {masks['scans']} scans in {masks['variants']} surroundings: padded in twelve ways, "
            "cropped, in larger fields, with drawn arms, tables and blankets",
            f"Dice with the plain scan's mask {least:.3f} or more for {masks['variants'] - len(below)}; below "
            f"for {len(cut)} of the two volumes that cut through the one lung that they hold, put into drawn "
            f"air{whole}; volume within {100 * volumes:.2f} % for {masks['paddings']} paddings",
            "0.98; 1 %",
            "`lung_variants.py DATA`",
        ),
        (
            "what the gate says of right pairs, simulated conditions, turned headers, children and wrong pairs",
            "[the table of its rules](gate.md)",
            "",
            "`gate.py DATA`",
        ),
        _large(),
    ]
    return table(["case", "result", "bar", "command"], rows)


def _large() -> tuple[str, str, str, str]:
    large = load("limits")
    slow, fast = (
        next(entry for name, entry in large.items() if name.endswith(method)) for method in ("sequential", "rigid")
    )
    return (
        "1024 x 1024 x 1000 voxels, read as 512 x 512 x 500",
        f"rigid {fast['peak_memory_mb'] / 1000:.1f} GB, {fast['cpu_s']:.0f} s of CPU time; sequential "
        f"{slow['peak_memory_mb'] / 1000:.1f} GB, {slow['cpu_s']:.0f} s; lung points of known20mm at that size to "
        f"{slow['tre_mean_mm']:.2f} mm",
        "8 GB",
        "`limits.py DATA SCRATCH`",
    )


# -- the module -----------------------------------------------------------------------------
def module() -> str:
    """Reaction times of the module in the stand-in host."""
    panel, scene = load("panel"), load("scene_threshold")
    three, slid = next(iter(scene.values())), panel["slider_and_table"]["slider"]
    grown = panel["runs_in_a_row"]["growth_from_second_to_last"]
    rows = [
        (
            "threshold slider to three painted views, 512 x 512 x 300",
            f"{three['median_ms']:.0f} ms",
            f"{three['bar_ms']:.0f} ms",
            "`scene_threshold.py`",
        ),
        (
            "the same in the panel: three views; current above prior (six); reading (one large)",
            ", ".join(f"{slid[f'{name}_judged_ms']:.0f}" for name in ("three_views", "compare", "read")) + " ms",
            "30 ms for three views",
            "`panel.py`",
        ),
        (
            "twenty comparisons in a row on one scene: nodes, observers, processes that stay",
            f"{sum(grown.values())}",
            "0",
            "`panel.py`",
        ),
        (
            "opening the panel; longest stall while a worker runs",
            f"{1000 * panel['opening']['median_s']:.0f} ms, {panel['stalls']['longest_ms']:.0f} ms",
            "100 ms, 100 ms",
            "`panel.py`",
        ),
    ]
    return table(["case", "result", "bar", "command"], rows)


# -- cohorts and evaluation -----------------------------------------------------------------
def cohort() -> str:
    """What happened to 200 pairs of which a worker was killed and the command interrupted."""
    found = load("cohort")["interrupted"]
    rows = [
        ("pairs", str(found["pairs"])),
        ("done when the command was interrupted", str(found["done_when_interrupted"])),
        ("of these kept by the same command, given again", str(found["kept_by_the_rerun"])),
        ("done exactly once in the end", str(found["done_exactly_once"])),
        ("failed", str(found["failed"])),
        ("started twice (those of the killed worker and of the interruption)", str(len(found["started_twice"]))),
        ("partial folders at the end", str(found["partial_folders_at_the_end"])),
    ]
    return table(["", "number"], rows)


def throughput() -> str:
    """What a second worker gains, in one sentence."""
    found = load("cohort")["throughput"]
    one, two = found["one"]["pairs_per_minute"], found["two"]["pairs_per_minute"]
    return (
        f"With one thread and one core each, two workers bring {two:.1f} pairs of small closed-form chests a minute to "
        f"their end (by the sequential method), one worker {one:.1f}: {found['ratio']:.2f} times as many."
    )


def evaluate_cost() -> str:
    """What ``changemap evaluate`` takes on 50 large cases, in one sentence."""
    found = load("evaluate_cost")["evaluate"]
    return (
        f"Each volume is read once, and a case is released before the next is read: {found['cases']} cases of "
        f"{found['voxels']} voxels, each with map, deformation, trust, lung masks and label maps (noise with drawn "
        f"lesions), took {found['peak_memory_mb'] / 1000:.2f} GB at most and {found['cpu_s']:.0f} s of CPU time."
    )


def simulation() -> str:
    """What 100,000 pairs on 64 workers need, and where it would give way first."""
    found = load("cohort_simulation")["simulation"]
    loop, pages, whole = found["loop"], found["pages"], found["computed"]
    full = whole["workers_at_which_it_is_full"]
    first = whole["first_to_give_way"]
    rows = [
        (
            "a pair, on one thread",
            f"{found['a_pair']['seconds']:.0f} s, {found['a_pair']['folder_mb']:.0f} MB of results",
        ),
        ("hours", f"{whole['hours']:.0f}"),
        ("results, scans", f"{whole['results_tb']:.1f} TB, {whole['inputs_tb']:.0f} TB"),
        ("storage traffic", f"{whole['traffic_mb_s']:.0f} MB/s"),
        (
            "scheduler, client and workers of the loop",
            f"{loop['cpu_ms_a_pair']:.1f} ms of CPU time a pair, {whole['scheduler_load_percent_of_a_core']:.1f} % of "
            f"a core; {loop['memory_grown_mb'] / 1000:.1f} GB at the end",
        ),
        (
            "reading the list, writing table and overview",
            f"{found['list_s']:.0f}, {pages['table_s']:.0f} and "
            f"{pages['overview_s']:.0f} s; {pages['overview_pages']} pages, {pages['overview_mb']:.0f} MB",
        ),
        ("first to give way", f"{first}, with {full[first]} workers"),
        *((f"next: {name}", f"{count} workers") for name, count in full.items() if name != first),
    ]
    return table([f"{loop['pairs']:,} pairs on {found['workers']} workers", "figure"], rows)


TABLES: dict[str, Callable[[], str]] = {
    "findings": findings,
    "joint": joint,
    "registration": registration,
    "rigid-and-lungs": rigid,
    "module": module,
    "cohort": cohort,
    "cohort-throughput": throughput,
    "cohort-simulation": simulation,
    "evaluate-cost": evaluate_cost,
}
