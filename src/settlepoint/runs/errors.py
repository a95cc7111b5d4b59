"""What can go wrong with a run folder; each message says what to do next."""


class RunError(Exception):
    """A run cannot start or go on: wrong folder, other spec, locked, or a missing extra."""


class WriteError(RunError):
    """A result could not be written, the disk being full for instance; everything written before is whole."""


class MissingExtra(RunError, ImportError):
    """An optional package is needed; the message names the extra that brings it."""
