"""What the machines sound like: the fleet, and each machine."""

from __future__ import annotations

from panels import (
    BLUE,
    DAEMON,
    GREEN,
    GREY,
    MACHINE,
    PURPLE,
    RED,
    YELLOW,
    Board,
    Query,
    alert_list,
    cell,
    now,
    stat,
    state_timeline,
    steps,
    table,
    time_series,
    values,
)

CONDITIONS = [
    (1, "normal", GREEN),
    (2, "anomalous", RED),
    (3, "idle", BLUE),
    (4, "maintenance", PURPLE),
    (5, "starting", GREY),
]
SIGNALS = [(1, "ok", GREEN), (2, "suspect", YELLOW), (3, "none", RED)]
GOOD_IF_NONE = steps((None, GREEN), (1, RED))


def coded(metric: str, label: str, codes: list[tuple[int, str, str]]) -> str:
    """One series for each machine whose value says which of its states it is in."""
    parts = [f'edge_asd_{metric}{{{label}="{name}",{MACHINE}}} * {number}' for number, name, _ in codes]
    return f"sum by (instance, machine) ({' or '.join(parts)})"


def fleet(board: Board) -> None:
    board.row("Fleet")
    for title, description, expr, thresholds in [
        (
            "Anomalous",
            "Machines with an open incident.",
            f'sum(edge_asd_condition{{condition="anomalous",{MACHINE}}})',
            GOOD_IF_NONE,
        ),
        (
            "Not heard",
            "Machines whose signal is none or suspect: if they broke now, nobody would be told.",
            f'sum(edge_asd_signal{{signal!="ok",{MACHINE}}})',
            GOOD_IF_NONE,
        ),
        (
            "Daemons that do not answer",
            "Computers, daemons or networks that are down.",
            f'count(up{{job="edge_asd",{DAEMON}}} == 0) or vector(0)',
            GOOD_IF_NONE,
        ),
        (
            "Muted",
            "Machines of which no alert is raised, since they are worked on.",
            f"sum(edge_asd_muted{{{MACHINE}}}) or vector(0)",
            steps((None, GREEN), (1, PURPLE)),
        ),
        (
            "Incidents",
            "Raised within the time that is shown.",
            f"sum(increase(edge_asd_incidents_total{{{MACHINE}}}[$__range]))",
            steps((None, BLUE)),
        ),
        (
            "Machines",
            "That are listened to.",
            f"count(edge_asd_machine_rarity_threshold{{{MACHINE}}})",
            steps((None, BLUE)),
        ),
    ]:
        board.add(stat(title, description, Query(expr, instant=True), thresholds), 4, 4)
    board.add(
        state_timeline(
            "Condition",
            "Of each machine. Grey: no window was scored yet. A gap: its daemon did not answer.",
            Query(coded("condition", "condition", CONDITIONS), "{{machine}} ({{instance}})"),
            values(*CONDITIONS),
        ),
        12,
    )
    board.add(
        state_timeline(
            "Signal",
            "Of each machine's sound: ok, suspect (the microphone is sick), none (no sound arrives).",
            Query(coded("signal", "signal", SIGNALS), "{{machine}} ({{instance}})"),
            values(*SIGNALS),
        ),
        12,
    )
    by_machine = "max by (site, node, instance, machine)"
    board.add(
        table(
            "Machines",
            "Now. Of threshold: rarity over threshold; the alarm is raised when several windows pass 100 %.",
            {
                "Rarity": now(f"{by_machine} (edge_asd_machine_rarity{{{MACHINE}}})"),
                "Threshold": now(f"{by_machine} (edge_asd_machine_rarity_threshold{{{MACHINE}}})"),
                "Of threshold": now(
                    f"{by_machine} (edge_asd_machine_rarity{{{MACHINE}}}"
                    f" / edge_asd_machine_rarity_threshold{{{MACHINE}}})"
                ),
                "Scored": now(f"{by_machine} (edge_asd_last_score_timestamp_seconds{{{MACHINE}}}) * 1000"),
                "Incidents": now(f"{by_machine} (edge_asd_incidents_total{{{MACHINE}}})"),
            },
            {"machine": "Machine", "site": "Site", "node": "Node", "instance": "Daemon"},
            [
                cell("Rarity", ("decimals", 2)),
                cell("Threshold", ("decimals", 2)),
                cell(
                    "Of threshold",
                    ("unit", "percentunit"),
                    ("decimals", 0),
                    ("max", 1),
                    ("min", 0),
                    ("thresholds", steps((None, GREEN), (0.5, YELLOW), (1, RED))),
                    ("custom.cellOptions", {"type": "gauge", "mode": "basic", "valueDisplayMode": "text"}),
                ),
                cell("Scored", ("unit", "dateTimeFromNow")),
                cell("Incidents", ("decimals", 0)),
            ],
        ),
        16,
        9,
    )
    board.add(alert_list("Alerts", "What Grafana's own rules say; the bell at the left shows all."), 8, 9)


def machine(board: Board) -> None:
    board.row("$machine", repeat="machine")
    board.add(
        time_series(
            "Rarity",
            "-log10 of the probability of such sound when normal: 2 is one window in 100. The alarm is raised when "
            "several windows pass the threshold. The median of six hours shows a slow drift towards it.",
            Query(f"edge_asd_machine_rarity{{{MACHINE}}}", "rarity"),
            Query(f"edge_asd_machine_rarity_threshold{{{MACHINE}}}", "threshold"),
            Query(f"machine:edge_asd_machine_rarity:median6h{{{MACHINE}}}", "median of 6 h"),
            dashed=("threshold",),
            min=0,
            decimals=2,
        ),
        16,
    )
    board.add(
        time_series(
            "Level",
            "Mean power of each window, dB re full scale; -120 is digital silence. A machine that has become louder "
            "is a finding about the machine.",
            Query(f"edge_asd_audio_level_dbfs{{{MACHINE}}}", "level"),
            unit="dB",
            decimals=1,
        ),
        8,
    )
    board.add(
        time_series(
            "Scores of the detectors",
            "Each in its own unit; higher is more anomalous. Which of them drives the rarity?",
            Query(f"edge_asd_detector_score{{{MACHINE}}}", "{{detector}}"),
        ),
        8,
    )
    board.add(
        time_series(
            "Windows",
            "What became of them, a minute. gap: sound was lost; suspect: sick signal; late: no time to score; "
            "failed: a detector could not.",
            Query(f"60 * sum by (result) (rate(edge_asd_windows_total{{{MACHINE}}}[$__rate_interval]))", "{{result}}"),
            min=0,
            fillOpacity=30,
            stacking={"mode": "normal", "group": "A"},
        ),
        8,
    )
    lost, heard = (f"rate(edge_asd_audio_{n}frames_total{{{MACHINE}}}[$__rate_interval])" for n in ("lost_", ""))
    board.add(
        time_series(
            "Lost and suspect",
            "Share of samples that were lost, and what is wrong with the signal (1 while it is).",
            Query(f"{lost} / ({lost} + {heard})", "lost"),
            Query(f"edge_asd_signal_suspect{{{MACHINE}}}", "{{reason}}"),
            unit="percentunit",
            min=0,
            max=1,
        ),
        8,
    )
