"""What all commands share: finding the command, and turning every error into a sentence."""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path

from fkd import __version__
from fkd.cli.output import complain, say
from fkd.core.errors import Cancelled, ConfigError, FkdError
from fkd.core.paths import home_dir
from fkd.core.registry import unknown_name_sentence

PROGRAM = "python -m fkd"

#: Each command's summary; its module of the same name has ``run(arguments) -> int``.
COMMANDS = {
    "train": "Train a teacher.",
    "distill": "Distil a student from a teacher.",
    "copy": "Make a student by rounding or pruning a model's weights.",
    "analyse": "Attack and certify a teacher and a student inside an epsilon-ball.",
    "attack": "Find how far two models get apart inside an epsilon-ball, by several measures.",
    "compare": "Set several students of one teacher side by side.",
    "score": "Measure students in all figures by which methods are compared.",
    "radius": "Find up to which epsilon two models provably predict the same.",
    "transfer": "Try what is found against one student on the teacher's other students.",
    "robust": "Measure how often one model alone stays right inside an epsilon-ball.",
    "models": "List models and architectures, show a card, import a model.",
    "data": "List data sets, download one.",
    "runs": "List runs, watch, cancel or resume one, read its log.",
}

EXIT_ERROR = 2
EXIT_INTERRUPTED = 130


def help_text() -> str:
    """What ``python -m fkd --help`` shows."""
    lines = [f"  {name:<9} {summary}" for name, summary in COMMANDS.items()]
    return "\n".join(
        [
            f"usage: {PROGRAM} COMMAND ...",
            "",
            "How faithfully does a student imitate its teacher inside an epsilon-ball?",
            "",
            "commands:",
            *lines,
            "",
            f"{PROGRAM} COMMAND --help lists a command's options; --version shows the version.",
            "",
            "folders, set by environment variables:",
            "  FKD_DATA_DIR    data sets            FKD_HOME   the user's models, results and runs",
            "other variables:",
            "  FKD_MAX_RUNS    runs at once (1)     FKD_DEBUG  1 shows tracebacks",
        ]
    )


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command, and answer every error with one sentence and an exit code.

    Exit codes: 0 done, 2 a sentence on stderr, 130 interrupted or cancelled.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not _is_debugging() and not sys.warnoptions:
        # Other packages' deprecations are no concern of whoever uses the command line.
        warnings.simplefilter("ignore")
    try:
        return _dispatch(words)
    except KeyboardInterrupt:
        complain("Interrupted.")
        return EXIT_INTERRUPTED
    except Cancelled as stop:
        complain(str(stop))
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Whoever read the output (head, say) has seen enough; nothing may be written any more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        return _answer(error, words)


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        say(help_text())
        return 0 if words else EXIT_ERROR
    if words[0] in ("--version", "version"):
        say(__version__)
        return 0
    if words[0] not in COMMANDS:
        raise ConfigError(unknown_name_sentence("command", words[0], list(COMMANDS)))
    module = importlib.import_module(f"fkd.cli.{words[0]}")
    return module.run(words[1:])


def _is_debugging() -> bool:
    return os.environ.get("FKD_DEBUG", "") not in ("", "0")


def _answer(error: Exception, words: list[str]) -> int:
    from fkd.runs import error_sentence

    if _is_debugging():
        traceback.print_exc()
    log = "the traceback above"
    if not isinstance(error, FkdError) and not _is_debugging():
        log = str(_write_log(error, words))
    complain(error_sentence(error, log))
    return EXIT_ERROR


def _write_log(error: Exception, words: list[str]) -> Path:
    """Keep the traceback where the sentence can point to."""
    text = "".join(traceback.format_exception(error))
    name = f"fkd-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"
    content = f"{PROGRAM} {' '.join(words)}\nfkd {__version__}\n\n{text}"
    for folder in (home_dir() / "logs", Path(tempfile.gettempdir())):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(content, encoding="utf-8")
        except OSError:
            continue
        return folder / name
    return Path("no log (no folder could be written)")
