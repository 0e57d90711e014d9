"""`tidegate trainer`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

from confluent_kafka import KafkaException

from stream.config import Settings
from stream.errors import UsageError
from stream.runtime.broker import Broker
from stream.runtime.clients import Membership, group_properties
from stream.runtime.group import GroupSource
from stream.runtime.kafka_client import client_config, explain_kafka_error
from stream.runtime.permissions import check_permissions
from stream.runtime.signing import sign
from stream.runtime.trainer.service import TrainerService
from stream.sources.kafka import Place


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Serve until told to stop, or until the end.

    Raises
    ------
    UsageError
        Without a key to sign with, or with one that no scorer trusts.
    TidegateError
        With the exit code that says what is wrong.
    """
    check_signing(settings)
    for path in settings.trainer.corpus:
        if not Path(path).is_file():
            raise UsageError(
                f"trainer.corpus must name files in the corpus layout; {path} is none. Set TIDEGATE_TRAINER__CORPUS."
            )
    topics = settings.topics
    broker = Broker(settings, "trainer")
    check_permissions(broker.admin, settings, "trainer", arguments.group_id)
    broker.require([topics.events, topics.scores, topics.labels], topics.partitions)
    broker.require([topics.retrain, topics.releases, topics.controls], 1)
    member = Membership(arguments.group_id, arguments.instance_id)
    common = client_config(settings, "trainer")

    def connect(listener: TrainerService) -> GroupSource:
        try:
            return GroupSource(group_properties(settings, common, member), [topics.retrain], listener, reset="earliest")
        except KafkaException as error:
            raise explain_kafka_error(error, settings) from error

    def ends() -> Mapping[Place, int]:
        return broker.ends([(topics.retrain, 0)])

    TrainerService(settings, connect, ends, until_end=arguments.until_end, log_format=arguments.log_format).run()
    return 0


def check_signing(settings: Settings) -> None:
    """Refuse to make what may not be announced.

    Raises
    ------
    UsageError
        When releases would be unsigned, or signed with a key that `release.trusted_keys` does not hold.
    """
    if not settings.release.signing_key_file:
        raise UsageError(
            "release.signing_key_file must name an Ed25519 private key (PEM): what is unsigned may not be announced. "
            "Make one with: openssl genpkey -algorithm ed25519 -out FILE, and set TIDEGATE_RELEASE__SIGNING_KEY_FILE."
        )
    key = sign(b"", Path(settings.release.signing_key_file)).key
    if settings.release.trusted_keys and key not in settings.release.trusted_keys:
        raise UsageError(
            f"release.trusted_keys must hold the public key of release.signing_key_file, {key}; it does not, and what "
            "the trainer signs would be refused. Add it to TIDEGATE_RELEASE__TRUSTED_KEYS."
        )
