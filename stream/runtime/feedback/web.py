"""What the feedback worker answers over HTTP: its health, its metrics, and its tables."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import orjson
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from stream.errors import UsageError
from stream.feedback.join import Row, labels
from stream.feedback.tally import counts
from stream.runtime.feedback.worker import Worker
from stream.runtime.metrics import FeedbackMetrics

_PATHS = "/healthz /readyz /metrics /labels/FINDING_UID /verdicts/FINDING_UID /counts /retrain"


class Web:
    """An HTTP server in the worker's own loop, so that a page never reads a table that is being written.

    Parameters
    ----------
    unready
        Why the worker is not ready, None when it is.
    """

    def __init__(
        self, listen: str, worker: Worker, metrics: FeedbackMetrics, unready: Callable[[], str | None]
    ) -> None:
        self._listen, self._worker, self._metrics, self._unready = listen, worker, metrics, unready
        self._runner: web.AppRunner | None = None
        self.url = ""

    async def start(self) -> None:
        """Listen.

        Raises
        ------
        UsageError
            When the address cannot be listened on.
        """
        application = web.Application()
        application.add_routes(
            [
                web.get("/healthz", self._healthz),
                web.get("/readyz", self._readyz),
                web.get("/metrics", self._metrics_page),
                web.get("/labels/{uid}", self._labels),
                web.get("/verdicts/{uid}", self._verdicts),
                web.get("/counts", self._counts),
                web.get("/retrain", self._retrain),
                web.get("/{other:.*}", self._unknown),
            ]
        )
        host, _, port = self._listen.rpartition(":")
        host = host.strip("[]")
        self._runner = web.AppRunner(application, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, int(port))
        try:
            await site.start()
        except (OSError, OverflowError) as error:
            raise UsageError(
                f"http.listen {self._listen!r} cannot be listened on: {error}. "
                "Set --http-listen 127.0.0.1:0 for a free port."
            ) from error
        taken_host, taken_port = self._runner.addresses[0][:2]
        self.url = f"http://[{taken_host}]:{taken_port}" if ":" in taken_host else f"http://{taken_host}:{taken_port}"

    async def close(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _healthz(self, request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, request: web.Request) -> web.Response:
        reason = self._unready()
        return web.Response(text="ready\n" if reason is None else f"{reason}\n", status=200 if reason is None else 503)

    async def _metrics_page(self, request: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self._metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _unknown(self, request: web.Request) -> web.Response:
        return web.Response(text=f"known paths: {_PATHS}\n", status=404)

    async def _labels(self, request: web.Request) -> web.Response:
        shown = self._worker.shows_segments
        return self._of_finding(
            request, lambda row: [orjson.loads(each) for each in labels(row, segments=shown).values()]
        )

    async def _verdicts(self, request: web.Request) -> web.Response:
        def told(row: Row) -> object:
            return {
                "finding": row.finding is not None,
                "verdicts": [
                    {**msgspec.to_builtins(seen.verdict), "identity": seen.identity, "arrived_ms": seen.at_ms}
                    for _, seen in sorted(row.verdicts.items())
                ],
                "effect": msgspec.to_builtins(row.effect),
            }

        return self._of_finding(request, told)

    def _of_finding(self, request: web.Request, told: Callable[[Row], object]) -> web.Response:
        if (reason := self._unready()) is not None:
            return _json({"error": reason}, 503)
        uid = request.match_info["uid"]
        row = self._worker.row(uid)
        if row is None:
            message = f"nothing is known of finding {uid} here; another process may have its partition"
            return _json({"error": message}, 404)
        return _json(told(row))

    async def _counts(self, request: web.Request) -> web.Response:
        if (elsewhere := self._elsewhere()) is not None:
            return elsewhere
        tallies = self._worker.tallies.values()
        rows = [
            {
                "tenant": tenant,
                "signal": signal,
                "attack": each.attack,
                "benign": each.benign,
                "disputed": each.disputed,
                "precision": each.precision,
            }
            for (tenant, signal), each in sorted(counts(tallies).items())
        ]
        return _json({"release": self._worker.release, "counts": rows})

    def _elsewhere(self) -> web.Response | None:
        """Why this process cannot tell what is counted, None when it can."""
        if (reason := self._unready()) is not None:
            return _json({"error": reason}, 503)
        return None if self._worker.counts_here else _json({"error": "another process counts"}, 404)

    async def _retrain(self, request: web.Request) -> web.Response:
        if (elsewhere := self._elsewhere()) is not None:
            return elsewhere
        return _json({subject: asked.last for subject, asked in sorted(self._worker.asked.items())})


def _json(value: Any, status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(value), status=status, content_type="application/json")
