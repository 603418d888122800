"""The command line: edge-asd run | replay | record | calibrate | mute | devices | check | demo."""

from __future__ import annotations

import argparse
import io
import os
import re
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from edge_asd import __version__
from edge_asd.check_cli import add_check, run_check
from edge_asd.errors import EXIT_CONFIGURATION, EXIT_DONE, EXIT_SOME_FAILED, EXIT_USAGE, EdgeAsdError, UsageError
from edge_asd.mute_cli import add_mute, run_mute
from edge_asd.publish.journal import error_line
from edge_asd.replay_cli import add_replay, run_replay

_EPILOG = """\
exit status: 0 done; 1 some inputs failed (named; the rest was done); 2 usage; 70 sound system hung; 78 configuration
"""
_STATE_HELP = "the daemon's state folder (default $STATE_DIRECTORY, else one of its own in ~/.local/state/edge-asd)"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    # Scoring uses threads of its own, one window each: BLAS threads would only cost memory. Before numpy is imported.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # file names need not be UTF-8
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.command is None:
        parser.print_help()
        return EXIT_USAGE
    try:
        status: int = _COMMANDS[options.command](options)
    except EdgeAsdError as error:
        for line in str(error).split("\n"):
            print(error_line(line, sys.stderr), file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of a pipe (head, say) has had enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_DONE
    except (OSError, RuntimeError) as error:
        # What nobody has thought of: a line for the technician; developers see all with PYTHONDEVMODE=1.
        if sys.flags.dev_mode:
            raise
        print(error_line(_unexpected(error), sys.stderr), file=sys.stderr)
        return EXIT_SOME_FAILED
    return status


def _unexpected(error: Exception) -> str:
    """What and where it was."""
    reason = str(error) or type(error).__name__
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        reason = f"{error.filename}: {error.strerror}"
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{reason} ({type(error).__name__}, unexpected, at line {last.lineno} of {last.filename})"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="edge-asd",
        description="Hears from the sound of a machine that it is about to fail.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"edge-asd {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    _add_run(commands)
    add_replay(commands)
    _add_record(commands)
    _add_calibrate(commands)
    add_mute(commands)
    _add_devices(commands)
    add_check(commands)
    _add_demo(commands)
    return parser


def _add_run(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    run = commands.add_parser(
        "run",
        help="listen to machines until stopped",
        description="Listens to the machines of a configuration until SIGTERM or Ctrl-C; events are lines on "
        "standard output, and go to MQTT and Prometheus where the configuration says so.",
    )
    run.add_argument("-c", "--config", type=Path, required=True, metavar="FILE", help="configuration (YAML)")
    run.add_argument("--until-end", action="store_true", help="stop when every recording has been played")
    run.add_argument("--state", type=Path, metavar="DIR", help=_STATE_HELP)
    run.add_argument(
        "--log",
        choices=("text", "json"),
        help="lines to read, or one JSON object a line (default text on a terminal and in the journal, else JSON)",
    )


def _add_demo(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    demo = commands.add_parser(
        "demo",
        help="hear a simulated slide rail break and be repaired",
        description="Plays 20 minutes of a simulated slide rail at full speed through the real pipeline, with the two "
        "detectors that come with edge-asd, and shows rarity, alerts and conditions.",
    )
    demo.add_argument("--seed", type=_not_negative, default=7, help="of the simulation (default 7)")


def _add_record(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    record = commands.add_parser(
        "record",
        help="record normal sound of a machine, to train on",
        description="Writes what the daemon would hear of a machine as clips of 10 s (FLAC), in the layout that "
        "edge-asd-train reads: DIR/NAME/train. Windows with gaps, with a sick signal, or of a machine that stands "
        "still (active_when) are refused; DIR/NAME/manifest.jsonl says what was. The machine needs no detectors yet. "
        "Interrupted, the same command goes on. The daemon must not run meanwhile: one process has the device.",
    )
    record.add_argument("-c", "--config", type=Path, required=True, metavar="FILE", help="configuration (YAML)")
    record.add_argument("--machine", required=True, metavar="NAME", help="of the configuration")
    record.add_argument(
        "--hours", type=_positive, required=True, metavar="N", help="hours of clips that there shall be"
    )
    record.add_argument("--out", type=Path, required=True, metavar="DIR", help="the data set's folder")
    record.add_argument("--id", type=_machine_id, default="id_00", metavar="ID", help="in clip names (default id_00)")
    record.add_argument(
        "--max-gigabytes", type=_positive, default=5.0, metavar="N", help="that the clips may take up (default 5)"
    )


def _add_calibrate(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    calibrate = commands.add_parser(
        "calibrate",
        help="learn from a machine's normal sound on this site what is rare for it",
        description="A detector's threshold is only as good as the normal sound that its calibration heard. This hears "
        "a machine's own, as the daemon would, and writes DETECTOR.NAME.calibration.json for each of its detectors, "
        "which `edge-asd run` takes at its next start or reload in place of what lies in the detector. The sound must "
        "be normal, and none that the detectors were trained on: such clips are left out. Windows with gaps, with a "
        "sick signal, or of a machine that stands still (active_when) do not count. An hour is little, a day with all "
        "that normally happens is good. It shows the thresholds before and after, and the false alarms to be expected "
        "with their uncertainty; --dry-run first. Former calibrations are kept.",
    )
    calibrate.add_argument("-c", "--config", type=Path, required=True, metavar="FILE", help="configuration (YAML)")
    calibrate.add_argument("--machine", required=True, metavar="NAME", help="of the configuration")
    calibrate.add_argument(
        "--from",
        dest="sound",
        nargs="+",
        type=Path,
        metavar="DIR",
        help="normal sound: what `edge-asd record --out DIR` wrote, or any folder of WAV and FLAC files (default: the "
        "machine's recordings, where the configuration has them)",
    )
    calibrate.add_argument("--hours", type=_positive, metavar="N", help="instead: listen to the device now, as record")
    calibrate.add_argument(
        "--out", type=Path, metavar="DIR", help="where --hours keeps what it heard (default nowhere)"
    )
    calibrate.add_argument("--channel", type=int, metavar="N", help="of recordings with several (default 1)")
    calibrate.add_argument("--state", type=Path, metavar="DIR", help=_STATE_HELP)
    calibrate.add_argument("--dry-run", action="store_true", help="show it all, write nothing")


def _add_devices(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    devices = commands.add_parser(
        "devices",
        help="list microphones, and how loud it is there",
        description="Lists the inputs with their channels, rates and live level, and marks with * what a configuration "
        "would take.",
    )
    devices.add_argument("-c", "--config", type=Path, metavar="FILE", help="configuration (YAML)")
    devices.add_argument("--seconds", type=_positive, default=0.5, metavar="N", help="to listen to each (default 0.5)")
    devices.add_argument("--json", action="store_true", help="print one JSON document instead of a table")


def _positive(text: str) -> float:
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError("must be above 0")
    return number


def _machine_id(text: str) -> str:
    if re.fullmatch(r"id_\d\d", text) is None:
        raise argparse.ArgumentTypeError("must be id_ and two digits, as in id_00")
    return text


def _not_negative(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError("must not be negative")
    return number


def _run(options: argparse.Namespace) -> int:
    from edge_asd.audio.quiet import filter_standard_error
    from edge_asd.config_file import instance_name, load_config
    from edge_asd.daemon import Daemon
    from edge_asd.publish.log import Log
    from edge_asd.publish.log_repeats import Repeats
    from edge_asd.state_folder import state_folder

    config = load_config(options.config)
    if config.device is not None:
        filter_standard_error()
    try:
        state = state_folder(options.config, options.state)
        log = Log(form=options.log, repeats=Repeats())
        daemon = Daemon(config, instance=instance_name(options.config), log=log, state=state)
    except EdgeAsdError as error:
        # Whatever is wrong at the start, the configuration is where it is mended.
        error.exit_status = EXIT_CONFIGURATION
        if not str(error).startswith(str(options.config)):
            error.args = (config.placed(str(error)),)
        raise
    return EXIT_DONE if daemon.run(until_end=options.until_end) else EXIT_SOME_FAILED


def _record(options: argparse.Namespace) -> int:
    from edge_asd.audio.quiet import filter_standard_error
    from edge_asd.config_file import load_config
    from edge_asd.recorder import Order, Recorder
    from edge_asd.state_folder import state_folder_in_use

    filter_standard_error()
    order = Order(options.machine, options.id, options.hours, options.out, options.max_gigabytes)
    return Recorder(load_config(options.config), order, state_folder_in_use(options.config)).run()


def _calibrate(options: argparse.Namespace) -> int:
    from edge_asd.calibrate import calibrate

    return calibrate(options)


def _devices(options: argparse.Namespace) -> int:
    from edge_asd.audio.quiet import filter_standard_error
    from edge_asd.config_file import load_config
    from edge_asd.devices import devices
    from edge_asd.machine import device_settings

    filter_standard_error()
    wanted, needed = None, 1
    if options.config is not None:
        config = load_config(options.config)
        if config.device is None:
            raise UsageError(f"devices: {options.config} has no device section")
        wanted = device_settings(config.device)
        needed = max(machine.channel or 1 for machine in config.machines)
    return devices(wanted, needed_channels=needed, seconds=options.seconds, as_json=options.json)


def _demo(options: argparse.Namespace) -> int:
    from edge_asd.demo.show import show

    return show(options.seed)


_COMMANDS = {
    "run": _run,
    "replay": run_replay,
    "record": _record,
    "calibrate": _calibrate,
    "mute": run_mute,
    "devices": _devices,
    "check": run_check,
    "demo": _demo,
}

if __name__ == "__main__":
    sys.exit(main())
