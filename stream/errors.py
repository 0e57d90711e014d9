"""What can go wrong, and with which exit code a command answers.

```
TidegateError          1   a bug
├── UsageError         2   usage or configuration
├── EnvironmentFault   3   broker, topic, credentials, partition count
├── CheckFailed        4   a comparison, a gate, a floor
├── StateError         5   state or release corrupt or incompatible
└── FencedError        6   fenced or fatal producer: restart me
DecodeError                becomes a dead letter, never an exit
RetriableError             the shell backs off and tries again
```
"""


class TidegateError(Exception):
    """A failure that one sentence explains: where, what was required, what came, what to do."""

    exit_code = 1


class UsageError(TidegateError):
    """A flag, an environment variable or a configuration key that cannot be taken as it is."""

    exit_code = 2


class EnvironmentFault(TidegateError):
    """Something outside is missing or different: broker, topic, credentials, partition count, a package."""

    exit_code = 3


class CheckFailed(TidegateError):
    """A comparison, a gate or a floor that was not met."""

    exit_code = 4


class StateError(TidegateError):
    """State, journal or release that is corrupt, or was written for something else."""

    exit_code = 5


class FencedError(TidegateError):
    """Another instance took over, or the producer cannot go on; a restart restores and continues."""

    exit_code = 6


class DecodeError(Exception):
    """A record that cannot be read.

    Parameters
    ----------
    reason
        One of `schemas.dead_letter.REASONS`: the dead letter's `tg-reason`.
    message
        Where in the record, what was required, what came.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class RetriableError(Exception):
    """A failure that may pass by itself; whoever owns the loop waits and tries again."""
