"""The exception tree: everything a user can cause derives from `FkdError`.

Each is raised with one sentence that says what was wrong, the value seen, and what to do, so that
the command line and the dashboard can show ``str(error)`` as it is.
"""

from typing import Any


class FkdError(Exception):
    """Base of every error that is the input's fault, not the program's."""


class ConfigError(FkdError):
    """A parameter, a name or a combination of choices cannot be used."""


class DataError(FkdError):
    """A data set is absent, damaged or of the wrong shape."""


class CheckpointError(FkdError):
    """A model file is absent, damaged, unsafe or does not fit its architecture."""


class UnsupportedModelError(FkdError):
    """A network holds an operation that the chosen procedure cannot handle."""


class StoreError(FkdError):
    """A table or its witnesses could not be read or written."""


class RunError(FkdError):
    """A run could not be started, resumed or cancelled."""


class SoundnessError(RuntimeError):
    """A witness exceeds its certificate: a bug in this program, never to be shown as a result."""


class Cancelled(FkdError):
    """The user asked a long computation to stop.

    Attributes:
        partial: what was proved or made until then, where the computation can say.
    """

    partial: Any = None
