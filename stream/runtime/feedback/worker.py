"""The Faust app: three agents give every record its finding's uid for key, one joins, one counts.

Nothing is acknowledged before all that follows from it is in Kafka, and everything that follows may come twice: labels
and counts have keys of which the last record counts, controls replace each other, and a record that says nothing new
says everything again. So a crash at any point leaves no label missing and none wrong.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from heapq import heapify, heappop, heappush
from typing import Any

import msgspec
import orjson
from faust.tables.table import Table
from faust.types import TP

from schemas import dead_letter
from schemas.control import Control
from schemas.retrain import RetrainRequest
from schemas.verdict import TIME_MAX
from stream.config import Settings
from stream.errors import DecodeError
from stream.feedback.effects import effect_of, must_send
from stream.feedback.inputs import (
    EvidenceSeen,
    Forget,
    Input,
    VerdictSeen,
    decode_input,
    encode_input,
    evidence_seen,
    finding_seen,
    tells_of_no_finding,
    verdict_of,
    verdict_seen,
)
from stream.feedback.join import ANALYSTS_MAX, Row, beyond, decode_row, encode_row, joined, labels
from stream.feedback.retrain import requests, unasked, with_asked
from stream.feedback.tally import (
    Asked,
    Counted,
    ReleaseSeen,
    Tally,
    counted_key,
    decode_counted,
    encode_counted,
    later_release,
    tally_of,
)
from stream.runtime.feedback.identity import identity_of
from stream.runtime.feedback.topics import OwnTopics
from stream.runtime.metrics import FeedbackMetrics
from stream.steps.route import partition_of_key

_LOG = logging.getLogger(__name__)
_ISSUER = "tidegate feedback"
_STEP = "stream.runtime.feedback.worker.Worker"
_FORGET_EVERY_SECONDS = 5.0
_FORGET_AT_ONCE = 200
_ASK_EVERY_SECONDS = 0.25
_AGE_EVERY_SECONDS = 60.0
_DAY_MS = 86_400_000
_PATIENCE = 10
"""A request waits at most so many times `feedback.quiet_ms`."""

Sent = Awaitable[Any]


class TrackedTable(Table):  # type: ignore[type-arg]
    """A table that hands over what its changelog is sent, so that a record can wait for it."""

    logger = logging.getLogger("faust.tables.tidegate")

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.sent: list[Any] = []

    def send_changelog(self, *arguments: Any, **named: Any) -> Any:
        """Send a change, and remember that it is under way."""
        future = super().send_changelog(*arguments, **named)
        self.sent.append(future)
        return future

    def take_sent(self) -> list[Any]:
        """Changes that were sent since the last call."""
        sent, self.sent = self.sent, []
        return sent


class Worker:
    """Agents, tables and timers of one process.

    Parameters
    ----------
    app
        A Faust app whose transport reads committed records.
    dead_letters
        Partitions and `max.message.bytes` of the verdicts' dead letter topic.
    now_ms
        The clock.
    failed
        Told once of what went wrong where nothing can go on.
    """

    def __init__(
        self,
        app: Any,
        settings: Settings,
        own: OwnTopics,
        dead_letters: tuple[int, int],
        metrics: FeedbackMetrics,
        now_ms: Callable[[], int],
        failed: Callable[[BaseException], None],
    ) -> None:
        self.app = app
        self._settings, self._own, self._dead_letters = settings, own, dead_letters
        self._metrics, self._now_ms, self._failed = metrics, now_ms, failed
        topics = settings.topics
        self.rows = self._table("rows", own.rows, topics.partitions)
        self.counted = self._table("counts", own.counts, 1)
        self.tallies: dict[str, Tally] = {}
        """Uid -> a judged finding, in the process that counts."""
        self._disputed = 0
        self.asked: dict[str, Asked] = {}
        self.in_service: ReleaseSeen | None = None
        self._scored_by: dict[int, str] = {}
        self._ages: list[tuple[int, str]] = []
        self._touched: dict[str, int] = {}
        self._waiting: dict[str, int] = {}
        self._changed_at: float | None = None
        self._waits_since = 0.0
        self._aged_at = 0.0
        self._work: set[asyncio.Task[Any]] = set()
        self._agent("findings", topics.findings, self._findings)
        self._agent("scores", topics.scores, self._scores)
        self._agent("verdicts", topics.verdicts, self._verdicts)
        self._agent("join", own.by_finding, self._join)
        self._agent("count", own.tally, self._count)
        app.timer(interval=_FORGET_EVERY_SECONDS)(self._forget)
        app.timer(interval=_ASK_EVERY_SECONDS)(self._ask)

    def _table(self, name: str, changelog: str, partitions: int) -> Any:
        topic = self._topic(changelog, partitions)
        return self.app.Table(
            name,
            partitions=partitions,
            changelog_topic=topic,
            key_type=bytes,
            value_type=bytes,
            recovery_buffer_size=1_000,
        )

    def _topic(self, name: str, partitions: int | None = None) -> Any:
        raw = {"key_type": bytes, "value_type": bytes, "key_serializer": "raw", "value_serializer": "raw"}
        return self.app.topic(name, partitions=partitions, **raw)

    def _agent(self, name: str, topic: str, handle: Callable[[Any], Awaitable[list[Sent]]]) -> None:
        """An agent that never loses what it could not do.

        Faust acknowledges a record whose agent raised, and restarts the agent. Here an error ends the process, which
        commits what was done before.
        """

        async def agent(stream: Any) -> None:
            # One after another: two at once would meet in one row.
            async for event in stream.noack().events():
                try:
                    sent = await handle(event)
                except Exception as error:  # noqa: BLE001  # whatever it is, the process ends and says so
                    self._failed(error)
                    await asyncio.Event().wait()
                self._done_when(event, sent)

        self.app.agent(self._topic(topic), name=f"tidegate.{name}", concurrency=1)(agent)

    def _done_when(self, event: Any, sent: Iterable[Sent]) -> None:
        pending = list(sent)
        if pending:
            self._watch(pending, lambda: event.message.ack(self.app.consumer))
        else:
            event.message.ack(self.app.consumer)

    def _watch(self, sent: Iterable[Sent], then: Callable[[], object]) -> None:
        """Call `then` once all of `sent` is in Kafka; the next record is not kept waiting."""

        async def wait() -> None:
            try:
                await asyncio.gather(*sent)
            except Exception as error:  # noqa: BLE001  # as above
                self._failed(error)
            else:
                then()

        task = asyncio.ensure_future(wait())
        self._work.add(task)
        task.add_done_callback(self._work.discard)

    async def _send(
        self,
        topic: str,
        partition: int,
        key: bytes | None,
        value: bytes | None,
        schema: str | None = None,
        headers: list[tuple[str, bytes | None]] | None = None,
    ) -> Sent:
        """Hand over a record; what is returned is done when it is in Kafka, on every replica that is in sync."""
        named = headers if headers is not None else []
        if schema is not None:
            named = [*named, ("tg-schema", schema.encode())]
        sent: Sent = await self.app.producer.send(topic, key, value, partition, None, named)
        return asyncio.ensure_future(sent)

    # -- by finding ----------------------------------------------------------------------------------------------------

    async def _by_finding(self, uid: str, value: Input) -> list[Sent]:
        """Give a record its finding's uid for key.

        Its timestamp is that of now: with a verdict's own, an old one read anew would fall to retention at once.
        """
        key = uid.encode()
        partition = partition_of_key(key, self._settings.topics.partitions)
        return [await self._send(self._own.by_finding, partition, key, encode_input(value))]

    async def _findings(self, event: Any) -> list[Sent]:
        message, topic = event.message, self._settings.topics.findings
        try:
            seen = finding_seen(message.value, _at_ms(message))
        except DecodeError as error:
            # Tidegate's own topic: what is not ours to read is not ours to keep either.
            _LOG.warning("%s[%d]@%d: %s; skipped", topic, message.partition, message.offset, error)
            self._metrics.records.labels(topic, "skipped").inc()
            return []
        self._metrics.records.labels(topic, "joined").inc()
        return await self._by_finding(seen.uid, seen)

    async def _scores(self, event: Any) -> list[Sent]:
        message, topic = event.message, self._settings.topics.scores
        sent = await self._release_seen(message)
        try:
            seen = evidence_seen(message.value, _at_ms(message))
        except DecodeError as error:
            _LOG.warning("%s[%d]@%d: %s; skipped", topic, message.partition, message.offset, error)
            seen = None
        self._metrics.records.labels(topic, "joined" if seen is not None else "skipped").inc()
        return sent if seen is None else sent + await self._by_finding(seen.uid, seen)

    def says_nothing(self, message: Any) -> bool:
        """Whether a record is a score of no finding, by a release that is known: told before Faust handles it."""
        if message.topic != self._settings.topics.scores or not tells_of_no_finding(message.value):
            return False
        release = _header(message, "tg-release")
        if release is not None and self._scored_by.get(message.partition) != release.decode("utf-8", "replace"):
            return False
        self._metrics.records.labels(message.topic, "skipped").inc()
        return True

    async def _release_seen(self, message: Any) -> list[Sent]:
        """Tell whoever counts of a release that a partition had not been scored by before, as far as this one knows."""
        release = (_header(message, "tg-release") or b"").decode("utf-8", "replace")
        if not release or self._scored_by.get(message.partition) == release:
            return []
        self._scored_by[message.partition] = release
        seen = ReleaseSeen(release=release, at_ms=_at_ms(message))
        return [await self._send(self._own.tally, 0, counted_key(seen), encode_counted(seen))]

    async def _verdicts(self, event: Any) -> list[Sent]:
        message, topic = event.message, self._settings.topics.verdicts
        try:
            verdict, plain = verdict_of(message.value)
            identity = identity_of(verdict, plain, self._settings.feedback.analysts)
        except DecodeError as error:
            _LOG.warning("%s[%d]@%d: %s", topic, message.partition, message.offset, error)
            self._metrics.records.labels(topic, "dead_letter").inc()
            self._metrics.dead_letters.labels(error.reason).inc()
            return [await self._dead_letter(message, error)]
        self._metrics.records.labels(topic, "joined").inc()
        seen = verdict_seen(verdict, identity, _at_ms(message))
        return await self._by_finding(seen.uid, seen)

    async def _dead_letter(self, message: Any, error: DecodeError) -> Sent:
        partitions, bytes_max = self._dead_letters
        place = {"topic": message.topic, "partition": message.partition, "offset": message.offset}
        headers = dead_letter.headers(
            _headers(message),
            **place,
            reason=error.reason,
            message=str(error),
            connector="tidegate.feedback",
            step=_STEP,
            stage="VALUE_CONVERTER",
            exception_class="stream.errors.DecodeError",
        )
        mode: dead_letter.PayloadMode = "reference" if self._settings.dlq.payload == "reference" else "raw"
        value = dead_letter.payload(
            message.value, key=message.key, headers=headers, mode=mode, message_bytes_max=bytes_max, **place
        )
        name = f"{self._settings.topics.verdicts}.dlq"
        return await self._send(name, message.partition % partitions, message.key, value, headers=list(headers))

    # -- the join ------------------------------------------------------------------------------------------------------

    async def _join(self, event: Any) -> list[Sent]:
        key, value = event.message.key, decode_input(event.message.value)
        uid = value.uid
        stored = self.rows.get(key)
        before = decode_row(stored) if stored is not None else Row()
        if beyond(before, value):
            # Not told again either: whoever makes up names would have all labels written for each.
            topic = self._settings.topics.verdicts
            _LOG.warning("%s: finding %s has verdicts of %d analysts; one more is dropped", topic, uid, ANALYSTS_MAX)
            self._metrics.records.labels(topic, "dropped").inc()
            return []
        after = joined(before, value)
        if after is None:
            if stored is not None:
                del self.rows[key]
            self._note(uid, None)
            return list(self.rows.take_sent())
        sent = await self._tell(uid, before, after, value)
        if not isinstance(value, EvidenceSeen | Forget):
            after, told = await self._effect(before, after)
            sent += told
        if after is not before:
            self.rows[key] = encode_row(after)
            sent += self.rows.take_sent()
            self._note(uid, after)
        if isinstance(value, VerdictSeen):
            at_ms = value.at_ms
            self._watch(sent, lambda: self._observe(at_ms))
        return sent

    async def _tell(self, uid: str, before: Row, after: Row, value: Input) -> list[Sent]:
        """Send the labels that changed; all of them when nothing did, for then the record may have come before."""
        if isinstance(value, Forget):
            return []
        known = labels(before, segments=self.shows_segments) if after is not before else {}
        topics, sent = self._settings.topics, []
        partition = partition_of_key(uid.encode(), topics.partitions)
        for key, label in labels(after, segments=self.shows_segments).items():
            if known.get(key) != label:
                sent.append(await self._send(topics.labels, partition, key, label, "labels.v1"))
                self._metrics.labels.labels(_teaches(label)).inc()
        tally = tally_of(after)
        if tally is not None and (after is before or tally != tally_of(before)):
            sent.append(await self._send(self._own.tally, 0, counted_key(tally), encode_counted(tally)))
        return sent

    async def _effect(self, before: Row, after: Row) -> tuple[Row, list[Sent]]:
        effect = effect_of(after, risk_hours=self._settings.feedback.risk_hours)
        if effect is None or not (must_send(effect, after.effect) or (after is before and after.effect is not None)):
            return after, []
        control = Control(
            kind="verdict",
            value=msgspec.to_builtins(effect),
            time_ms=self._now_ms(),
            issuer=_ISSUER,
            tenant=effect.tenant,
        )
        key = orjson.dumps([effect.tenant])
        value = orjson.dumps(msgspec.to_builtins(control), option=orjson.OPT_SORT_KEYS)
        sent = await self._send(self._settings.topics.controls, 0, key, value, "controls.v1")
        self._metrics.controls.labels(effect.effect).inc()
        return after if effect == after.effect else msgspec.structs.replace(after, effect=effect), [sent]

    def _observe(self, at_ms: int) -> None:
        self._metrics.latency_seconds.observe(max(0, self._now_ms() - at_ms) / 1000)

    # -- what is old ---------------------------------------------------------------------------------------------------

    def _note(self, uid: str, row: Row | None) -> None:
        """Keep how old a row is, and whether its verdicts wait, where it need not be decoded to be told."""
        if row is None:
            self._touched.pop(uid, None)
            self._waiting.pop(uid, None)
        else:
            if uid not in self._touched:
                heappush(self._ages, (row.touched_ms, uid))
            self._touched[uid] = row.touched_ms
            if row.finding is None and row.verdicts:
                self._waiting[uid] = len(row.verdicts)
            else:
                self._waiting.pop(uid, None)
        self._metrics.rows.set(len(self._touched))
        self._metrics.waiting.set(sum(self._waiting.values()))

    async def _forget(self) -> None:
        """Let rows go whose finding is too old for a verdict: through the topic, so that nothing else is at the row."""
        before_ms = self._now_ms() - self._settings.feedback.verdict_days * _DAY_MS
        sent = 0
        while self._ages and self._ages[0][0] < before_ms and sent < _FORGET_AT_ONCE:
            _, uid = heappop(self._ages)
            touched = self._touched.get(uid)
            if touched is None:
                continue
            if touched >= before_ms:
                heappush(self._ages, (touched, uid))
                continue
            del self._touched[uid]
            self._watch(await self._by_finding(uid, Forget(uid=uid, before_ms=before_ms)), lambda: None)
            sent += 1

    def recovered(self) -> None:
        """Tables were recovered, at start or after a rebalance: what is kept beside them is made anew."""
        self._touched.clear()
        self._waiting.clear()
        self._ages.clear()
        for key, value in self.rows.items():
            uid, row = key.decode(), decode_row(value)
            self._touched[uid] = row.touched_ms
            self._ages.append((row.touched_ms, uid))
            if row.finding is None and row.verdicts:
                self._waiting[uid] = len(row.verdicts)
        heapify(self._ages)
        self._metrics.rows.set(len(self._touched))
        self._metrics.waiting.set(sum(self._waiting.values()))
        # Another process may have been told of a release meanwhile.
        self._scored_by.clear()
        self.tallies.clear()
        self._disputed = 0
        self.asked.clear()
        self.in_service = None
        for value in self.counted.values():
            self._keep(decode_counted(value))
        self._changed()
        self._show_disputed()

    # -- counts and requests -------------------------------------------------------------------------------------------

    async def _count(self, event: Any) -> list[Sent]:
        value = decode_counted(event.message.value)
        if isinstance(value, ReleaseSeen):
            later = later_release(self.in_service, value)
            if later is self.in_service:
                return []
            value = later
        elif isinstance(value, Tally) and self.tallies.get(value.uid) == value:
            return []
        self.counted[counted_key(value)] = encode_counted(value)
        self._keep(value)
        if not isinstance(value, Asked):
            self._changed()
        self._show_disputed()
        return list(self.counted.take_sent())

    def _keep(self, value: Counted) -> None:
        if isinstance(value, Tally):
            before = self.tallies.get(value.uid)
            self._disputed += (value.judged == "disputed") - (before is not None and before.judged == "disputed")
            self.tallies[value.uid] = value
        elif isinstance(value, ReleaseSeen):
            self.in_service = value
        else:
            self.asked[value.subject] = value

    def _changed(self) -> None:
        now = asyncio.get_running_loop().time()
        if self._changed_at is None:
            self._waits_since = now
        self._changed_at = now

    def _show_disputed(self) -> None:
        self._metrics.disputed.set(self._disputed)

    @property
    def shows_segments(self) -> bool:
        """Whether the configuration allows excerpts of traffic in labels."""
        return self._settings.feedback.segments == "excerpts"

    @property
    def counts_here(self) -> bool:
        """Whether this process has the partition that all judged findings meet on."""
        return TP(self._own.tally, 0) in self.app.consumer.assignment()

    async def _ask(self) -> None:
        """Publish what should be trained anew, once verdicts pause."""
        now, quiet = asyncio.get_running_loop().time(), self._settings.feedback.quiet_ms / 1000
        if now - self._aged_at > _AGE_EVERY_SECONDS and self._changed_at is None:
            self._changed()
            self._aged_at = now
        if self._changed_at is None or (now - self._changed_at < quiet and now - self._waits_since < _PATIENCE * quiet):
            return
        self._changed_at, self._aged_at = None, now
        if not self.counts_here:
            return
        wanted = requests(list(self.tallies.values()), self.in_service, self._now_ms(), self._settings.feedback)
        for request in unasked(wanted, self.asked.values()):
            try:
                await self._publish(request)
            except Exception as error:  # noqa: BLE001  # as above
                self._failed(error)
                return

    async def _publish(self, request: RetrainRequest) -> None:
        value = orjson.dumps(msgspec.to_builtins(request), option=orjson.OPT_SORT_KEYS)
        topics = self._settings.topics
        await (await self._send(topics.retrain, 0, request.subject.encode(), value, "retrain.v1"))
        # Remembered once it is there: asked twice is harmless, by its id, and never asked is not.
        known = with_asked(self.asked.get(request.subject), request)
        self.asked[request.subject] = known
        await (await self._send(self._own.tally, 0, counted_key(known), encode_counted(known)))
        for reason in request.reasons:
            self._metrics.retrain_requests.labels(reason.cause).inc()
        _LOG.info("retraining of %s asked for: %s", request.subject, "; ".join(each.detail for each in request.reasons))

    # -- for whoever asks ----------------------------------------------------------------------------------------------

    @property
    def release(self) -> str:
        """The release in service, as far as it is known here."""
        if self.in_service is not None:
            return self.in_service.release
        return max(self._scored_by.values(), default="")

    def row(self, uid: str) -> Row | None:
        """What is known of a finding, None when nothing is, or another process has its partition."""
        stored = self.rows.get(uid.encode())
        return decode_row(stored) if stored is not None else None

    async def settle(self, seconds: float) -> None:
        """Wait for what is under way."""
        if self._work:
            await asyncio.wait(list(self._work), timeout=seconds)


def _at_ms(message: Any) -> int:
    # Kafka takes any 64 bits for a timestamp, and -1 for none.
    return min(max(round((message.timestamp or 0.0) * 1000), 0), TIME_MAX)


def _headers(message: Any) -> list[tuple[str, bytes | None]]:
    headers = message.headers
    if headers is None:
        return []
    return list(headers.items()) if isinstance(headers, Mapping) else list(headers)


def _header(message: Any, name: str) -> bytes | None:
    return next((value for key, value in reversed(_headers(message)) if key == name), None)


def _teaches(label: bytes) -> str:
    return str(orjson.loads(label)["teaches"] or "nothing")
