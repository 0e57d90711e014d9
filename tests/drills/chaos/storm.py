"""What happens to a pipeline in a drill, and in which order: both follow from the seed."""

import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from confluent_kafka.admin import AdminClient

from deploy.kafka.cluster import LocalCluster
from tests.drills.chaos.detour import Detour
from tests.drills.chaos.pipeline import Pipeline

SESSION_TIMEOUT_S = 10.0
SCORERS_LEAST, SCORERS_MOST = 2, 4
_BACK_S = 300.0
OTHERS: Sequence[str] = (
    "join", "broker", "zombie", "cut", "leave", "transaction-coordinator", "slow-network", "join", "slow-disk",
    "group-coordinator", "leave", "broker-restart",
)  # fmt: skip
"""What happens beside kills of services, in the order in which a drill that is too short for all takes them."""
EXPECTED_S = {
    "kill": 6.0, "broker": 25.0, "transaction-coordinator": 25.0, "group-coordinator": 25.0, "zombie": 20.0,
    "cut": 10.0, "slow-network": 8.0, "slow-disk": 8.0, "join": 4.0, "leave": 4.0, "broker-restart": 20.0,
}  # fmt: skip
"""Seconds that each takes, pauses included: traffic is spread over their sum."""


def planned(kills: int, others: int, seed: int) -> list[str]:
    """The drill's acts, shuffled.

    >>> planned(3, 2, 1)
    ['kill', 'join', 'broker', 'kill', 'kill']
    """
    acts = ["kill"] * kills + [OTHERS[number % len(OTHERS)] for number in range(others)]
    random.Random(seed).shuffle(acts)
    return acts


@dataclass(frozen=True, slots=True)
class Done:
    """One act, as it was carried out."""

    at_s: float
    """Since the drill's start."""
    seconds: float
    act: str
    what: str


@dataclass(slots=True)
class Storm:
    """Carries the acts out.

    Parameters
    ----------
    say
        Told of every act once it is over.
    """

    pipeline: Pipeline
    cluster: LocalCluster
    detour: Detour
    seed: int
    say: Callable[[Done], None]
    begun: float = field(default_factory=time.monotonic)
    done: list[Done] = field(default_factory=list)
    _chance: random.Random = field(init=False)
    _admin: AdminClient = field(init=False)
    _kills: int = 0

    def __post_init__(self) -> None:
        self._chance = random.Random(self.seed)
        self._admin = AdminClient({"bootstrap.servers": self.cluster.bootstrap_servers, "log_level": 0})

    def run(self, acts: Sequence[str]) -> None:
        """All of `acts`, one after the other, with pauses in between."""
        carry_out: dict[str, Callable[[], str]] = {
            "kill": self._kill,
            "join": self._join,
            "leave": self._leave,
            "zombie": self._zombie,
            "cut": self._cut,
            "slow-network": self._slow_network,
            "slow-disk": self._slow_disk,
            "broker": lambda: self._lose(self._chance.choice(self.cluster.running)),
            "broker-restart": self._roll,
            "group-coordinator": lambda: self._lose(self.group_coordinator()),
            "transaction-coordinator": lambda: self._lose(self.transaction_coordinator()),
        }
        for act in acts:
            self._pause(0.5, 3.0)
            begun = time.monotonic()
            what = carry_out[act]()
            self.pipeline.revive()
            now = time.monotonic()
            self.done.append(Done(begun - self.begun, now - begun, act, what))
            self.say(self.done[-1])

    @property
    def counts(self) -> Counter[str]:
        """How often each act was carried out."""
        return Counter(done.act for done in self.done)

    def group_coordinator(self) -> int:
        """The broker that leads the scorers' group."""
        return self._leader("__consumer_offsets", self.pipeline.group("score"))

    def transaction_coordinator(self) -> int:
        """The broker that keeps the first scorer's transactions."""
        return self._leader("__transaction_state", f"{self.pipeline.group('score')}.1")

    # -- services ----------------------------------------------------------------------------------------------------

    def _kill(self) -> str:
        # Every third one is ingest; the others are scorers, whichever.
        self._kills += 1
        name = "ingest-1" if self._kills % 3 == 0 else self._chance.choice(self.pipeline.scorers)
        self.pipeline.kill(name)
        self._pause(0.0, 2.0)
        # One in five is killed again before it is ready, perhaps.
        self.pipeline.start(name, wait=self._chance.random() > 0.2)
        return name

    def _join(self) -> str:
        absent = [name for name in ("score-3", "score-any") if name not in self.pipeline.services]
        if not absent or len(self.pipeline.scorers) >= SCORERS_MOST:
            return self._leave()
        self.pipeline.start(absent[0])
        return f"{absent[0]} joins"

    def _leave(self) -> str:
        present = [name for name in ("score-3", "score-any") if name in self.pipeline.services]
        if not present or len(self.pipeline.scorers) <= SCORERS_LEAST:
            return self._join()
        self.pipeline.stop(present[0])
        return f"{present[0]} leaves"

    def _zombie(self) -> str:
        """A scorer that sleeps for longer than its session, and wakes in the middle of what it did."""
        name = self._chance.choice(self.pipeline.scorers)
        service = self.pipeline.services[name]
        service.freeze()
        self._pause(SESSION_TIMEOUT_S + 1.0, SESSION_TIMEOUT_S + 6.0)
        service.thaw()
        self._pause(2.0, 4.0)
        return f"{name}, and ended with {service.code}" if service.code is not None else name

    # -- the network and the brokers -----------------------------------------------------------------------------------

    def _cut(self) -> str:
        self.detour.cut()
        self._pause(2.0, 12.0)
        self.detour.mend()
        return ", ".join(sorted(self.pipeline.far))

    def _slow_network(self) -> str:
        self.detour.delay_s = self._chance.uniform(0.05, 0.3)
        self._pause(4.0, 8.0)
        told, self.detour.delay_s = self.detour.delay_s, 0.0
        return f"{1000 * told:.0f} ms either way"

    def _slow_disk(self) -> str:
        broker = self._chance.choice(self.cluster.running)
        self.cluster.freeze(broker)
        self._pause(3.0, 7.0)
        self.cluster.thaw(broker)
        return f"broker {broker}"

    def _lose(self, broker: int) -> str:
        """A broker is killed; while it is away a scorer is, too."""
        self.cluster.kill(broker)
        self._pause(1.0, 8.0)
        name = self._chance.choice(self.pipeline.scorers)
        self.pipeline.kill(name)
        self.pipeline.start(name)
        self._pause(1.0, 5.0)
        self._back(broker)
        return f"broker {broker}, and {name} meanwhile"

    def _roll(self) -> str:
        broker = self._chance.choice(self.cluster.running)
        self.cluster.shut_down(broker)
        self._back(broker)
        return f"broker {broker}"

    def _back(self, broker: int) -> None:
        """Start a broker again, and wait until it has caught up: two at once would be no drill but an outage."""
        self.cluster.start(broker, _BACK_S)
        deadline = time.monotonic() + _BACK_S
        while time.monotonic() < deadline:
            topics = self._admin.list_topics(timeout=120.0).topics.values()
            if all(len(part.isrs) == len(part.replicas) for topic in topics for part in topic.partitions.values()):
                return
            time.sleep(0.5)
        raise TimeoutError(f"broker {broker} has not caught up within {_BACK_S:.0f} s of its restart")

    def _leader(self, topic: str, name: str) -> int:
        partitions = self._admin.list_topics(topic, timeout=120.0).topics[topic].partitions
        return int(partitions[abs(_java_hash(name)) % len(partitions)].leader)

    def _pause(self, least_s: float, most_s: float) -> None:
        time.sleep(self._chance.uniform(least_s, most_s))


def _java_hash(text: str) -> int:
    """Java's `String.hashCode` of an ASCII name, by which Kafka finds the coordinator of a group or transactional id.

    >>> _java_hash("hello")
    99162322
    """
    value = 0
    for letter in text:
        value = (31 * value + ord(letter)) & 0xFFFFFFFF
    return value - 0x100000000 if value & 0x80000000 else value
