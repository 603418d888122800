"""The command line: edge-asd-train statistics | cae | anogan | evaluate | simulate | disturb | fetch | reproduce."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from edge_asd import __version__
from edge_asd.errors import EXIT_DONE, EXIT_SOME_FAILED, EXIT_USAGE, EdgeAsdError, UsageError

from .cache_folder import add_cache_option, cache_in
from .disturb_cli import add_disturb
from .evaluate_cli import add_evaluate
from .fetch_cli import add_fetch
from .kinds import FOLDS, KINDS, STATISTICS, presets_of, train_detector
from .reproduce_cli import add_reproduce
from .settings import HelpFormatter, field_meanings
from .simulate_cli import add_simulate

_Settings = TypeVar("_Settings")
_NEEDED = ("torch", "onnx", "onnxscript", "tqdm")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    parser = _parser(given)
    options = parser.parse_args(given)
    if options.command is None:
        parser.print_help()
        return EXIT_USAGE
    try:
        with cache_in(getattr(options, "cache", None)):
            status: int = options.do(options)
    except EdgeAsdError as error:
        print(f"edge-asd-train: {error}", file=sys.stderr)
        return error.exit_status
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] not in _NEEDED:
            raise
        print(f"edge-asd-train: {error.name} is not installed: pip install 'edge-asd[train]'", file=sys.stderr)
        return EXIT_USAGE
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_DONE
    except OSError as error:
        print(f"edge-asd-train: {error.filename or 'a file'}: {error.strerror or error}", file=sys.stderr)
        return EXIT_SOME_FAILED
    except KeyboardInterrupt:
        left = (
            "the same command goes on where it was"
            if options.command in (*KINDS, "reproduce")
            else "nothing was written"
        )
        print(f"edge-asd-train: interrupted; {left}", file=sys.stderr)
        return 130
    return status


def _parser(given: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="edge-asd-train",
        description="Makes detectors for edge-asd from recordings of normal sound, and judges them.",
    )
    parser.add_argument("--version", action="version", version=f"edge-asd-train {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    _add_kind(commands, given, "statistics", "distances of clip statistics; no network, seconds to fit")
    _add_kind(commands, given, "cae", "convolutional autoencoder; statistics of what it cannot reconstruct")
    _add_kind(commands, given, "anogan", "adversarial networks; statistics of what the generator cannot reach")
    add_evaluate(commands)
    add_simulate(commands)
    add_disturb(commands)
    add_fetch(commands)
    add_reproduce(commands)
    return parser


def _add_kind(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], given: Sequence[str], kind: str, text: str
) -> None:
    parser = commands.add_parser(
        kind,
        help=text,
        description=f"Makes a detector file: {text}. Reads DIR/NAME/train, normal clips named "
        "normal_id_XX_NNNNNNNN.wav or .flac.",
        formatter_class=HelpFormatter,
    )
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder in the DCASE 2020 layout")
    parser.add_argument("--machine", required=True, metavar="NAME", help="folder within it, for example slider")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="detector file to write (.onnx)")
    parser.add_argument("--id", nargs="+", metavar="ID", help="machine ids to train on; all unless given")
    parser.add_argument(
        "--folds", type=int, default=FOLDS[kind], help="parts for scores of clips that were not trained on"
    )
    parser.add_argument(
        "--recording-digits",
        type=int,
        default=1,
        metavar="N",
        help="clips whose numbers agree but for the last N digits are of one recording and never split",
    )
    parser.add_argument(
        "--background",
        nargs="+",
        type=Path,
        metavar="DIR",
        help="normal sound of other machines recorded on the same site (a machine's folder, or a data set's: all in it"
        " but this machine): teaches what varies on the site without being a fault",
    )
    parser.add_argument(
        "--allow-collapse",
        action="store_true",
        help="write the detector, marked, even if it does not follow its input or follows the level",
    )
    add_cache_option(parser)
    parser.add_argument("--licence", metavar="TEXT", help="of the recordings; kept in the file")
    parser.add_argument("--seed", type=int, default=0, help="same seed, data and machine: same detector")
    if kind in given and kind != STATISTICS:  # the settings come with torch, which takes seconds to import
        parser.add_argument(
            "--preset",
            choices=("default", "report"),
            default="default",
            help="the best that was found, or the technical report that the design comes from, to be read beside it"
            " (implies --allow-collapse); options below change it further",
        )
        group = parser.add_argument_group("network and training")
        for setting in _settings_of(kind):
            _add_setting(group, setting)
    parser.set_defaults(do=_train, kind=kind)


@dataclasses.dataclass(frozen=True)
class _Setting:
    name: str
    meaning: str
    default: Any
    report: Any
    """Its value in the preset of that name."""
    read: bool
    """Whether that value is our reading of the report, which does not state it."""


def _settings_of(kind: str) -> list[_Setting]:
    """The hyper-parameters of a kind, read from its settings class.

    Without torch the list is empty: help still works, and training then says what to install.
    """
    try:
        presets, readings = presets_of(kind)
    except ModuleNotFoundError:
        return []
    default, report = presets["default"], presets["report"]
    meanings = field_meanings(type(default))
    return [
        _Setting(name, meanings[name], getattr(default, name), getattr(report, name), name in readings)
        for name in (f.name for f in dataclasses.fields(default))
        if name != "seed"
    ]


def _add_setting(group: argparse._ArgumentGroup, setting: _Setting) -> None:
    """An option without a default of its own: what is not given comes from the preset."""
    values = f"{_shown(setting.default)}"
    if setting.report != setting.default:
        values += f"; report: {_shown(setting.report)}{', our reading' if setting.read else ''}"
    kind: dict[str, Any] = {"default": None, "help": f"{setting.meaning} (default: {values})"}
    if isinstance(setting.default, bool):
        kind["action"] = argparse.BooleanOptionalAction
    elif isinstance(setting.default, tuple):
        kind |= {"type": int, "nargs": len(setting.default), "metavar": "N"}
    elif isinstance(setting.default, str):
        kind["metavar"] = "KIND"
    else:
        kind |= {"type": type(setting.default), "metavar": "N"}
    group.add_argument(_flag(setting.name), **kind)


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    return " ".join(map(str, value)) if isinstance(value, tuple) else f"{value:g}"


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _train(options: argparse.Namespace) -> int:
    from .training import read_training_set

    if options.out.is_dir():
        raise UsageError(f"--out {options.out}: is a folder; give the name of a file")
    if not 0 <= options.seed < 2**62:
        raise UsageError(f"--seed {options.seed}: must {'not be negative' if options.seed < 0 else 'be below 2^62'}")
    # Before the hours of training, not after them.
    options.out.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(options.out.parent, os.W_OK):
        raise UsageError(f"--out {options.out}: its folder cannot be written to")
    try:
        training = read_training_set(
            options.data,
            options.machine,
            ids=options.id,
            folds=options.folds,
            recording_digits=options.recording_digits,
            seed=options.seed,
            background=options.background or (),
        )
    except ValueError as error:
        raise UsageError(str(error)) from None
    settings, preset, allowed = None, "default", options.allow_collapse
    if options.kind != STATISTICS:
        preset = options.preset
        allowed = allowed or preset == "report"
        chosen = {s.name: getattr(options, s.name) for s in _settings_of(options.kind) if hasattr(options, s.name)}
        given = {name: tuple(v) if isinstance(v, list) else v for name, v in chosen.items() if v is not None}
        settings = _settings(presets_of(options.kind)[0][preset], given)
    train_detector(
        options.kind, training, options.out, settings, licence=options.licence, preset=preset, allow_collapse=allowed
    )
    return EXIT_DONE


def _settings(preset: _Settings, given: dict[str, Any]) -> _Settings:
    try:
        return dataclasses.replace(preset, **given)  # type: ignore[type-var]
    except ValueError as error:
        raise UsageError(str(error)) from None


if __name__ == "__main__":
    sys.exit(main())
