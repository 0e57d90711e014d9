"""LiteLLM's calls on a Kafka topic: what `litellm_settings.callbacks` of a proxy's config.yaml names.

```yaml
litellm_settings:
  callbacks: ["tidegate.litellm.tidegate_logger"]
```

Needs `tidegate[litellm]` beside litellm, and `KAFKA_BOOTSTRAP_SERVERS`; `tidegate.gateway_log` has the other settings.
What is wrong with them stops the proxy while it starts, when somebody looks; no call is failed or held up by its log.
"""

from __future__ import annotations

import atexit
import functools
import hashlib
import os
import re
import signal
import threading
from collections.abc import Mapping
from types import FrameType
from typing import Any

from litellm.integrations.custom_logger import CustomLogger
from litellm.litellm_core_utils.logging_worker import GLOBAL_LOGGING_WORKER

from tidegate.gateway_log import NO_PAYLOAD, GatewayLog, read_log_settings

_LEFT_OUT = frozenset({"model_map_information"})
"""LiteLLM's catalogue entry of the model, 8 KB that are the same for every call."""
_HASH = re.compile(r"[0-9a-f]{64}")
_MASTER_KEY = "litellm_proxy_master_key"
"""What LiteLLM writes for the key's hash of calls made with its master key."""
_RECENT_MAX = 1_024
_SESSION_NAMES = ("session_id", "trace_id")
_KEY_CHARACTERS = 1_024


class TidegateLogger(CustomLogger):
    """Hands every call's StandardLoggingPayload to a `GatewayLog`, once.

    Its records are LiteLLM's own but for three things. The model's catalogue entry is left out. So is a trace id that
    LiteLLM made up: ingest takes the trace id for the session's, and one made up for each call would make each call a
    session. And a key that LiteLLM wrote as it came, as it does with one that it refuses and that does not begin with
    `sk-`, is hashed: what a caller sent in its place may be the secret of something else.
    """

    def __init__(self, log: GatewayLog) -> None:
        super().__init__()
        self.log = log
        self._lock = threading.Lock()
        self._recent: dict[tuple[Any, ...], None] = {}

    async def async_log_success_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        """LiteLLM's, of a call made with `acompletion` or through the proxy."""
        self._take(kwargs)

    async def async_log_failure_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        """LiteLLM's, of a call that failed."""
        self._take(kwargs)

    def log_success_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        """LiteLLM's, of a call made with `completion`."""
        self._take(kwargs)

    def log_failure_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        """LiteLLM's, of a call that failed; of one that the proxy itself refuses, beside the asynchronous one."""
        self._take(kwargs)

    def _take(self, kwargs: Mapping[str, Any]) -> None:
        payload = kwargs.get("standard_logging_object")
        if not isinstance(payload, Mapping):
            self.log.count(NO_PAYLOAD)
        elif not self._seen(payload):
            record = {name: value for name, value in payload.items() if name not in _LEFT_OUT}
            if not _names_session(kwargs):
                record["generated_trace_id"], record["trace_id"] = record.get("trace_id"), ""
            record["metadata"] = _with_hashed_key(record.get("metadata"))
            self.log.log(_key(record), record)

    def _seen(self, payload: Mapping[str, Any]) -> bool:
        """Whether LiteLLM has told of this attempt before; each retry of a call is an attempt of its own."""
        attempt = tuple(payload.get(name) for name in ("litellm_call_id", "status", "startTime"))
        with self._lock:
            if attempt in self._recent:
                return True
            self._recent[attempt] = None
            if len(self._recent) > _RECENT_MAX:
                del self._recent[next(iter(self._recent))]
        return False


def _with_hashed_key(metadata: Any) -> Any:
    key = metadata.get("user_api_key_hash") if isinstance(metadata, Mapping) else None
    if not isinstance(key, str) or not key or key == _MASTER_KEY or _HASH.fullmatch(key):
        return metadata
    return {**metadata, "user_api_key_hash": hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()}


def _names_session(kwargs: Mapping[str, Any]) -> bool:
    """Whether the caller named a session or a trace: with a header, in `metadata`, or in the body."""
    params = kwargs.get("litellm_params")
    if not isinstance(params, Mapping):
        return False
    held = [params.get(name) for name in ("metadata", "litellm_metadata")]
    named = [metadata.get(name) for metadata in held if isinstance(metadata, Mapping) for name in _SESSION_NAMES]
    return any([params.get("litellm_session_id"), *named])


def _key(record: Mapping[str, Any]) -> bytes:
    """The partition key: a session's calls share it, in any case those of one key that begin with the same words."""
    session = record.get("session_id") or record.get("trace_id")
    if isinstance(session, str) and session:
        return session.encode("utf-8", "replace")[:256]
    metadata, messages = record.get("metadata"), record.get("messages")
    caller = metadata.get("user_api_key_hash") if isinstance(metadata, Mapping) else None
    said = [one for one in messages if isinstance(one, Mapping)] if isinstance(messages, list) else []
    first = next((one.get("content") for one in said if one.get("role") == "user"), messages if not said else None)
    start = first[:_KEY_CHARACTERS] if isinstance(first, str) else first
    return hashlib.blake2b(repr((caller, start)).encode("utf-8", "replace"), digest_size=16).hexdigest().encode()


def hold_sigterm_till_flushed() -> None:
    """Let a server that is stopped with SIGTERM flush its last records before it dies.

    uvicorn shuts down when it is told to, then raises the signal once more with the default action, by which a process
    dies without its exit handlers: LiteLLM's queue of calls to log and this log's buffer would be lost. The handler
    set here passes the signal on, and holds back the second one in the main thread until `_leave` lets it through.
    Does nothing without a handler to pass it on to, or outside of the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    serving = signal.getsignal(signal.SIGTERM)
    if not callable(serving):
        return

    def stop(number: int, frame: FrameType | None) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        serving(number, frame)

    signal.signal(signal.SIGTERM, stop)


def _leave(log: GatewayLog) -> None:
    """At the interpreter's exit: what LiteLLM has yet to tell, what is buffered, and then the signal that waits.

    The process ends here as it would have without a log; taking LiteLLM's modules apart would be seconds more.
    """
    # Its own exit handler comes after this one, and would come too late; a version without it loses only its queue.
    tell = getattr(GLOBAL_LOGGING_WORKER, "_flush_on_exit", None)
    if callable(tell):
        tell()
    log.close()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


@functools.cache
def _logger() -> TidegateLogger:
    log = GatewayLog(read_log_settings(os.environ))
    hold_sigterm_till_flushed()
    atexit.register(_leave, log)
    return TidegateLogger(log)


def __getattr__(name: str) -> TidegateLogger:
    """`tidegate_logger`, made when the proxy first asks for it; to import this module starts nothing."""
    if name == "tidegate_logger":
        return _logger()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
