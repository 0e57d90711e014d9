"""A restore that does not compare what it has read with what is committed: the product's own guard, taken away.

Two of the broken variants would end with exit code 5 by it, and the checker would have nothing to judge.
"""

from stream.runtime.restore import Restorer


def trust(restore: type[Restorer]) -> None:
    """Let `restore` go on from the committed offset whatever the state says."""

    def believed(self: Restorer, partition: int, committed: int | None) -> int:
        return self._reader.low((self._inputs, partition)) if committed is None else committed

    restore._checked = believed  # type: ignore[method-assign]
