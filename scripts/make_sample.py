"""Make `sample/`: traffic of a few tenants, laid on the arrivals of real clients, with attacks in its last days.

    python scripts/make_sample.py --corpus DIR --arrivals DIR --out sample

Only sessions whose own licence allows redistribution go in. One seed gives the same bytes.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from hashlib import blake2b
from itertools import accumulate
from pathlib import Path
from typing import Any

import msgspec

from schemas.corpus import CorpusSession, calls, decode_session
from schemas.corpus_timeline import UNDATED_START_MS, duration_ms
from stream.sources.lines import read_lines

LICENSES = frozenset({"MIT", "Apache-2.0", "CC-BY-4.0", "CC-BY-3.0"})
START_MS = UNDATED_START_MS
DAY_MS = 86_400_000
TRAIN_DAYS, LIVE_DAYS = 10, 4

BENIGN_FILES = ("dojo_gt", "tau_bench", "mint", "toolbench_cot", "multilingual", "hard_negatives")
BENIGN: dict[str, tuple[int | None, int]] = {
    "dojogt-banking": (None, 40),
    "dojogt-slack": (None, 26),
    "dojogt-travel": (None, 58),
    "dojogt-workspace": (None, 60),
    "tau-airline": (120, 36),
    "tau-retail": (46, 22),
    "mint-alfworld": (140, 18),
    "mint-gsm8k": (140, 18),
    "mint-hotpotqa": (140, 18),
    "mint-math": (140, 18),
    "mint-mbpp": (140, 18),
    "rapidapi-assistant": (240, 36),
    "crosswoz-zh": (160, 26),
    "woz-it": (180, 26),
    "hardneg-code": (240, 40),
}
"""Sessions at most by tenant: train (None is half of its tasks), live."""

INJECTED_PER_TENANT = 11
FOREIGN = {"pyrit_templates": 9, "itw_jailbreak": 6, "jailbreakbench": 6, "cyberseceval_pi": 9}
"""Attack sessions by file, each placed on a tenant of its own choosing as a session of its own."""
LABELLED = {"pyrit_templates": 120, "itw_jailbreak": 160, "jailbreakbench": 30, "cyberseceval_pi": 160}
"""Attack sessions at most by file that somebody has labelled before, to train a classifier of known attacks on. Beside
them are the injections into tools' results on tasks of the training days, whose goals no live attack of the tenant has.
"""
FOREIGN_TENANTS = (
    "mint-gsm8k",
    "rapidapi-assistant",
    "tau-airline",
    "hardneg-code",
    "woz-it",
    "tau-retail",
    "mint-mbpp",
    "crosswoz-zh",
    "mint-hotpotqa",
)
FOREIGN_CHARS_MAX = 5000
UNSUITED = re.compile(
    r"nsfw|sex|porn|incest|rape|nazi|nigg|fagg|slut|pedo|child|underage|suicid|genocid|bomb|meth\b|terror|murder|kill",
    re.IGNORECASE,
)
"""Jailbreaks jailbreak without it too."""
REFUSAL = re.compile(r"^\s*(I'm sorry|I am sorry|Sorry|I cannot|I can't|I apologi[sz]e)", re.IGNORECASE)
SECRET = re.compile(
    r"AKIA[0-9A-Z]{16}|-----BEGIN [A-Z ]*PRIVATE KEY|\bsk-[A-Za-z0-9_-]{20}|\bgh[pousr]_[A-Za-z0-9]{30}|\bxox[abp]-"
    r"[0-9]|\bAIza[0-9A-Za-z_-]{30}|\beyJ[A-Za-z0-9_-]{20,}\.eyJ"
)
"""What looks like a live credential; a session that holds one stays out."""

TOOL_PAUSE_MS, TOOL_PAUSE_SIGMA = 850, 0.8
READ_PAUSE_MS, READ_PAUSE_SIGMA = 9_000, 0.7
TYPED_CHAR_MS = 110
PAUSE_MAX_MS = 240_000

SHAPE_MIN = 0.7
"""Least shape of the gaps (1 is Poisson): few requests are kept, and thinning takes most of a burst away."""


def main() -> None:
    """Read the arguments, write the files, print what is in them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True, help="folder of labelled conversations, *.jsonl.gz")
    parser.add_argument("--arrivals", type=Path, required=True, help="folder with clients.jsonl.gz")
    parser.add_argument(
        "--out", type=Path, required=True, help="folder to write train, live and attacks (.jsonl.gz) into"
    )
    parser.add_argument("--seed", type=int, default=7)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    rng = random.Random(args.seed)

    benign, injected = _by_tenant(args.corpus)
    clients = _clients(args.arrivals / "clients.jsonl.gz", rng)
    openings: list[frozenset[str]] = []
    delivered: list[CorpusSession] = []
    placed = _foreign(args.corpus, openings, rng)
    train: list[CorpusSession] = []
    live: list[CorpusSession] = []
    for tenant, (train_max, live_max) in BENIGN.items():
        learn, rest = _split(benign[tenant], train_max, rng)
        rest = rest[:live_max]
        rest_tasks = {base_conversation(session) for session in rest}
        attacks = _spread([s for s in injected[tenant] if base_conversation(s) in rest_tasks], INJECTED_PER_TENANT, rng)
        delivered += _labelled_injections(injected[tenant], attacks, rest_tasks)
        judged = [*rest, *attacks, *placed[tenant]]
        rng.shuffle(judged)
        tools = _tools([*benign[tenant], *injected[tenant]])
        keys = rng.choice((2, 3))
        client = clients.pop()
        train += _lay(learn, client, 0, TRAIN_DAYS, tenant, tools, keys, rng)
        live += _lay(judged, client, TRAIN_DAYS, TRAIN_DAYS + LIVE_DAYS, tenant, tools, keys, rng)
    labelled = delivered + _labelled(args.corpus, openings, random.Random(args.seed))
    for name, sessions in (("train", train), ("live", live), ("attacks", labelled)):
        _write(args.out / f"{name}.jsonl.gz", sessions)
    print(table(train, live))
    print(f"\n{len(labelled)} labelled attacks")


@dataclass(frozen=True, slots=True)
class Client:
    """A client's arrivals: starts of 10-minute windows in s, requests in each, the shape of the gaps between them."""

    starts: tuple[float, ...]
    requests: tuple[float, ...]
    draw: tuple[Callable[[random.Random], float], ...]
    """Gaps of mean 1, by window."""


def _usable(session: CorpusSession) -> bool:
    if session.license not in LICENSES or not calls(session):
        return False
    text = "\n".join(turn.text for turn in session.turns)
    return not SECRET.search(text)


def _read(path: Path) -> list[CorpusSession]:
    return [session for session in map(decode_session, read_lines(path)) if _usable(session)]


def _by_tenant(corpus: Path) -> tuple[dict[str, list[CorpusSession]], dict[str, list[CorpusSession]]]:
    """Benign sessions by tenant, and those with injections in tool results."""
    benign: dict[str, list[CorpusSession]] = defaultdict(list)
    injected: dict[str, list[CorpusSession]] = defaultdict(list)
    for name in BENIGN_FILES:
        for session in _read(corpus / f"{name}.jsonl.gz"):
            if session.tenant is not None:
                (benign if session.label == "benign" else injected)[session.tenant].append(session)
    return benign, injected


def base_conversation(session: CorpusSession) -> str:
    """The base conversation of a session: its task, else what it opens with, for trials of one task open alike."""
    if session.task:
        return session.task
    parts = session.session.split("/")
    if parts[0] == "tau":
        return "/".join(parts[:3])
    opening = next((turn.text for turn in session.turns if turn.role == "user"), "")
    return blake2b(opening.encode(), digest_size=8).hexdigest()


def _split(
    sessions: list[CorpusSession], train_max: int | None, rng: random.Random
) -> tuple[list[CorpusSession], list[CorpusSession]]:
    """Sessions to learn from and the rest, no base conversation on both sides; those of few tasks are halved."""
    by_base: dict[str, list[CorpusSession]] = defaultdict(list)
    for session in sessions:
        by_base[base_conversation(session)].append(session)
    bases = sorted(by_base)
    rng.shuffle(bases)
    learn: list[CorpusSession] = []
    rest: list[CorpusSession] = []
    for base in sorted(bases, key=lambda base: -len(by_base[base])) if train_max is None else bases:
        to_learn = len(learn) <= len(rest) if train_max is None else len(learn) < train_max
        (learn if to_learn else rest).extend(by_base[base])
    rng.shuffle(rest)
    return learn[:train_max], rest


def _spread(sessions: list[CorpusSession], count: int, rng: random.Random) -> list[CorpusSession]:
    """`count` attacks, each family in turn, and within it each base conversation."""
    by_family: dict[str, list[CorpusSession]] = defaultdict(list)
    rng.shuffle(sessions)
    for session in sessions:
        by_family[session.attack_family or ""].append(session)
    chosen: list[CorpusSession] = []
    used: dict[str, int] = defaultdict(int)
    while len(chosen) < min(count, len(sessions)):
        for family in sorted(by_family):
            left = [s for s in by_family[family] if s not in chosen]
            if left and len(chosen) < count:
                pick = min(left, key=lambda s: used[base_conversation(s)])
                used[base_conversation(pick)] += 1
                chosen.append(pick)
    return chosen


def _labelled(corpus: Path, openings: list[frozenset[str]], rng: random.Random) -> list[CorpusSession]:
    """Attacks none of which says in great part what one of the live ones, whose words are `openings`, says."""
    labelled: list[CorpusSession] = []
    for name, count in LABELLED.items():
        fit = [s for s in _read(corpus / f"{name}.jsonl.gz") if _harmless_to_ship(s)]
        labelled += _spread_distinct(fit, count, openings, rng)
    return labelled


def _labelled_injections(
    injected: list[CorpusSession], live: list[CorpusSession], live_tasks: set[str]
) -> list[CorpusSession]:
    """Injections with neither a task nor a goal of the live part."""
    goals = {_goal(session) for session in live}
    return [s for s in injected if base_conversation(s) not in live_tasks and _goal(s) not in goals]


def _goal(session: CorpusSession) -> str:
    """What the injection asks for; `dojogt/<suite>/<task>/<template>/<goal>/<followed or not>` names it."""
    return session.session.split("/")[-2]


def _foreign(corpus: Path, openings: list[frozenset[str]], rng: random.Random) -> dict[str, list[CorpusSession]]:
    """Attacks that come without a tenant, placed; their words are added to `openings`."""
    placed: dict[str, list[CorpusSession]] = defaultdict(list)
    turn = 0
    for name, count in FOREIGN.items():
        fit = [s for s in _read(corpus / f"{name}.jsonl.gz") if _harmless_to_ship(s)]
        for session in _spread_distinct(fit, count, openings, rng):
            tenant = FOREIGN_TENANTS[turn % len(FOREIGN_TENANTS)]
            placed[tenant].append(session)
            turn += 1
    return placed


def _harmless_to_ship(session: CorpusSession) -> bool:
    text = "\n".join(turn.text for turn in session.turns)
    answers = [turn.text for turn in session.turns if turn.role == "assistant"]
    return (
        60 <= len(text) <= FOREIGN_CHARS_MAX
        and not UNSUITED.search(text)
        and all(REFUSAL.match(answer) for answer in answers)
    )


def _spread_distinct(
    sessions: list[CorpusSession], count: int, openings: list[frozenset[str]], rng: random.Random
) -> list[CorpusSession]:
    """Attacks of different families where there are some, none that says in great part what another says."""
    chosen: list[CorpusSession] = []
    for session in _spread(sessions, len(sessions), rng):
        words = frozenset(" ".join(turn.text for turn in session.turns if turn.role != "assistant").lower().split())
        if len(chosen) < count and all(len(words & other) < 0.6 * len(words | other) for other in openings):
            openings.append(words)
            chosen.append(session)
    return chosen


def _tools(sessions: Iterable[CorpusSession]) -> dict[str, tuple[str, ...]]:
    """Tools that the tenant's sessions call, with the arguments seen."""
    tools: dict[str, set[str]] = defaultdict(set)
    for session in sessions:
        for turn in session.turns:
            for call in turn.tool_calls:
                arguments = json.loads(call.arguments) if call.arguments.startswith("{") else {}
                if call.name:
                    tools[call.name].update(arguments)
    return {name: tuple(sorted(tools[name])) for name in sorted(tools)}


def _clients(path: Path, rng: random.Random) -> list[Client]:
    """Clients that call in both parts of the fortnight, in random order."""
    clients: list[Client] = []
    for line in read_lines(path):
        windows = msgspec.json.decode(line)["windows"]
        late = [w for w in windows if w[0] >= TRAIN_DAYS * DAY_MS / 1000]
        if len(windows) - len(late) < 240 or len(late) < 60:
            continue
        clients.append(
            Client(
                tuple(w[0] for w in windows),
                tuple(w[1] * 600 for w in windows),
                tuple(_gap(w[3], max(w[4], SHAPE_MIN)) for w in windows),
            )
        )
    rng.shuffle(clients)
    return clients


def _gap(family: str, shape: float) -> Callable[[random.Random], float]:
    if family == "Gamma":
        return lambda rng: rng.gammavariate(shape, 1 / shape)
    return lambda rng: rng.weibullvariate(1.0, shape)


def arrivals(client: Client, first_day: int, last_day: int, count: int, rng: random.Random) -> list[int]:
    """`count` arrivals in ms since the sample's start: the client's renewals, run on its own clock.

    The clock runs as fast as the client calls, so that its busy hours are busy; gaps have the shape of the window they
    fall into, so that its bursts are bursts. It is then slowed until `count` sessions fill the days.
    """
    windows = [
        i
        for i, start in enumerate(client.starts)
        if first_day * 86_400 <= start < last_day * 86_400 and client.requests[i]
    ]
    clock = list(accumulate(client.requests[i] for i in windows))
    position, ticks = 0.0, []
    for _ in range(count + 1):
        window = windows[min(bisect_left(clock, position % clock[-1]), len(windows) - 1)]
        position += client.draw[window](rng) * clock[-1] / (count + 1)
        ticks.append(position)
    times = []
    for tick in ticks[:count]:
        reading = tick / ticks[count] * clock[-1]
        i = min(bisect_left(clock, reading), len(windows) - 1)
        into = 1 - (clock[i] - reading) / client.requests[windows[i]]
        times.append(int((client.starts[windows[i]] + 600 * into) * 1000))
    return times


def _lay(
    sessions: list[CorpusSession],
    client: Client,
    first_day: int,
    last_day: int,
    tenant: str,
    tools: dict[str, tuple[str, ...]],
    keys: int,
    rng: random.Random,
) -> list[CorpusSession]:
    """The sessions on the client's arrivals, in their order."""
    laid = []
    for session, arrival in zip(sessions, arrivals(client, first_day, last_day, len(sessions), rng), strict=True):
        start_ms = START_MS + arrival
        changed = msgspec.structs.replace(
            session,
            tenant=tenant,
            key=f"k{1 + min(int(rng.expovariate(1.2)), keys - 1)}",
            tools=tools,
            start_ms=start_ms,
            calls_ms=_call_starts(session, start_ms, rng),
        )
        laid.append(changed)
    return laid


def _call_starts(session: CorpusSession, start_ms: int, rng: random.Random) -> tuple[int, ...]:
    now, starts = start_ms, []
    for call in calls(session):
        if call.index:
            typed = sum(len(turn.text) for turn in session.turns[call.new : call.history] if turn.role == "user")
            if typed:
                pause = READ_PAUSE_MS * rng.lognormvariate(0, READ_PAUSE_SIGMA) + TYPED_CHAR_MS * min(typed, 400)
            else:
                pause = TOOL_PAUSE_MS * rng.lognormvariate(0, TOOL_PAUSE_SIGMA)
            now += int(min(pause, PAUSE_MAX_MS))
        starts.append(now)
        now += duration_ms(session, call)
    return tuple(starts)


def _line(session: CorpusSession) -> dict[str, Any]:
    """The session as a corpus line: what it has not is left out."""
    turns: list[dict[str, Any]] = []
    for turn in session.turns:
        line: dict[str, Any] = {"role": turn.role, "text": turn.text}
        if turn.tool_calls:
            line["tool_calls"] = [
                {"name": call.name or None, "args": json.loads(call.arguments) if call.name else None}
                for call in turn.tool_calls
            ]
        if turn.payload:
            line["payload"] = True
        turns.append(line)
    line = {name: value for name, value in msgspec.to_builtins(session).items() if value not in (None, {}, [], ())}
    return {**line, "turns": turns}


def _write(path: Path, sessions: list[CorpusSession]) -> None:
    ordered = sorted(sessions, key=lambda s: (s.start_ms or 0, s.tenant or "", s.session))
    with path.open("wb") as raw, gzip.GzipFile("", "wb", compresslevel=9, fileobj=raw, mtime=0) as packed:
        for session in ordered:
            packed.write(json.dumps(_line(session), ensure_ascii=False, separators=(",", ":")).encode() + b"\n")


def table(train: list[CorpusSession], live: list[CorpusSession]) -> str:
    """Counts by tenant, as the README has them."""
    rows = ["| tenant | train sessions (calls) | live benign (calls) | live attacks (calls) |", "|---|---|---|---|"]
    parts = {
        "train": train,
        "benign": [s for s in live if s.label == "benign"],
        "attack": [s for s in live if s.label == "attack"],
    }
    for tenant in [*BENIGN, "all"]:
        cells = []
        for sessions in parts.values():
            own = [s for s in sessions if tenant in (s.tenant, "all")]
            cells.append(f"{len(own)} ({sum(len(calls(s)) for s in own)})")
        rows.append(f"| {tenant} | {' | '.join(cells)} |")
    families: dict[str, int] = defaultdict(int)
    for session in parts["attack"]:
        families[session.attack_family or ""] += 1
    rows += ["", "| attack family | live sessions |", "|---|---|"]
    rows += [f"| {family} | {count} |" for family, count in sorted(families.items())]
    return "\n".join(rows)


if __name__ == "__main__":
    main()
