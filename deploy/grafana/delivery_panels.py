"""Whether alerts would arrive: the broker, the outbox, and the computers that score."""

from __future__ import annotations

from panels import (
    DAEMON,
    GREEN,
    MACHINE,
    RED,
    Board,
    Query,
    cell,
    now,
    state_timeline,
    steps,
    table,
    time_series,
    values,
)


def delivery(board: Board) -> None:
    board.row("Delivery")
    board.add(
        state_timeline(
            "Broker",
            "Whether the daemon is connected. Grey: no broker is configured.",
            Query(f"edge_asd_mqtt_connected{{{DAEMON}}}", "{{instance}}"),
            values((1, "connected", GREEN), (0, "not connected", RED)),
        ),
        8,
    )
    rates = {
        n: f"60 * sum by (instance) (rate(edge_asd_mqtt_{n}_total{{{DAEMON}}}[$__rate_interval]))"
        for n in ("acknowledged", "refused", "unheard")
    }
    board.add(
        time_series(
            "Messages",
            "A minute. refused: the broker's access list says no. unheard: alerts that had no subscriber.",
            *(Query(expr, f"{{{{instance}}}} {name}") for name, expr in rates.items()),
            min=0,
        ),
        8,
    )
    board.add(
        time_series(
            "Waiting in the outbox",
            "Age of the oldest message that the broker has not acknowledged; 0 where there is none. 15 minutes alert.",
            Query(
                f"(time() - edge_asd_outbox_oldest_timestamp_seconds{{{DAEMON}}})"
                f" * (edge_asd_outbox_oldest_timestamp_seconds{{{DAEMON}}} > bool 0)",
                "{{instance}}",
            ),
            unit="s",
            min=0,
            thresholds=steps((None, GREEN), (900, RED)),
        ),
        8,
    )
    board.add(
        time_series(
            "Messages in the outbox",
            "That wait for the broker, and (as a step) those that were given up: full, expired, corrupt.",
            Query(f"edge_asd_outbox_messages{{{DAEMON}}}", "{{instance}}"),
            Query(
                f"sum by (instance, reason) (increase(edge_asd_outbox_dropped_total{{{DAEMON}}}[$__rate_interval]))",
                "{{instance}} dropped: {{reason}}",
            ),
            min=0,
        ),
        12,
    )
    board.add(
        time_series(
            "Pictures and sound of incidents",
            "What they take up on the daemon's disk.",
            Query(f"edge_asd_evidence_bytes{{{DAEMON}}}", "{{instance}}"),
            unit="bytes",
            min=0,
        ),
        12,
    )


def computers(board: Board) -> None:
    board.row("Computers")
    board.add(
        time_series(
            "Scoring budget",
            "Time that scoring takes over the time that the cores have. Beyond 100 % windows are left out; 80 % alert.",
            Query(f"edge_asd_scoring_budget_ratio{{{DAEMON}}}", "{{instance}}"),
            unit="percentunit",
            min=0,
            thresholds=steps((None, GREEN), (0.8, RED)),
        ),
        8,
    )
    buckets = f"sum by (le, detector) (rate(edge_asd_scoring_duration_seconds_bucket{{{MACHINE}}}[$__rate_interval]))"
    board.add(
        time_series(
            "Scoring latency",
            "From a window to a detector's score: the time that 95 % stay below, and the median.",
            Query(f"histogram_quantile(0.95, {buckets})", "{{detector}} 95 %"),
            Query(f"histogram_quantile(0.5, {buckets})", "{{detector}} median"),
            unit="s",
            min=0,
        ),
        8,
    )
    board.add(
        time_series(
            "Memory",
            "Resident memory of the daemon.",
            Query(f'process_resident_memory_bytes{{job="edge_asd",{DAEMON}}}', "{{instance}}"),
            unit="bytes",
            min=0,
        ),
        8,
    )
    board.add(
        state_timeline(
            "Answers",
            "Whether Prometheus reaches the daemon.",
            Query(f'up{{job="edge_asd",{DAEMON}}}', "{{instance}}"),
            values((1, "up", GREEN), (0, "down", RED)),
        ),
        8,
    )
    board.add(
        time_series(
            "Audio device",
            "Disturbances an hour: burst, samples came late; gap and overflow, some were lost; loss, it was gone.",
            Query(
                f"sum by (instance, kind) (increase(edge_asd_audio_disturbances_total{{{DAEMON}}}[1h]))",
                "{{instance}} {{kind}}",
            ),
            min=0,
        ),
        8,
    )
    board.add(
        table(
            "Detectors",
            "Which file each machine is scored by; the same sha256 is the same detector.",
            {"": now(f"edge_asd_detector_info{{{MACHINE}}}")},
            {"machine": "Machine", "detector": "Detector", "kind": "Kind", "sha256": "SHA-256"},
            [cell("", ("custom.hidden", True))],
        ),
        8,
    )
