"""Grants what `tidegate topics acls --json --out FILE` says, in one request.

```
tidegate topics acls --source-topic litellm.logs --json --out acls.json
python -m deploy.kafka.apply_acls acls.json --bootstrap-servers kafka:9093 --config admin.properties
```

`admin.properties` holds librdkafka's keys, one `key=value` a line. What is needed in some cases only is left out,
unless `--all` is given. Granting twice changes nothing; nothing is ever withdrawn.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

_OPERATIONS = {
    "Read": AclOperation.READ,
    "Write": AclOperation.WRITE,
    "Create": AclOperation.CREATE,
    "Describe": AclOperation.DESCRIBE,
    "DescribeConfigs": AclOperation.DESCRIBE_CONFIGS,
    "IdempotentWrite": AclOperation.IDEMPOTENT_WRITE,
}
_RESOURCES = {
    "topic": ResourceType.TOPIC,
    "group": ResourceType.GROUP,
    "cluster": ResourceType.BROKER,
    "transactional-id": ResourceType.TRANSACTIONAL_ID,
}
_PATTERNS = {"literal": ResourcePatternType.LITERAL, "prefixed": ResourcePatternType.PREFIXED}
_TIMEOUT_S = 20.0


def bindings(acls: Iterable[Mapping[str, Any]], *, all_cases: bool = False) -> list[AclBinding]:
    """One a permission: from any host, allowed."""
    return [
        AclBinding(
            _RESOURCES[acl["resource_type"]],
            acl["name"],
            _PATTERNS[acl["pattern"]],
            acl["principal"],
            "*",
            _OPERATIONS[operation],
            AclPermissionType.ALLOW,
        )
        for acl in acls
        if all_cases or not acl["when"]
        for operation in acl["operations"]
    ]


def grant(admin: AdminClient, wanted: Sequence[AclBinding]) -> None:
    """Grant all of it.

    Raises
    ------
    KafkaException
        When the broker refuses one.
    """
    for future in admin.create_acls(list(dict.fromkeys(wanted)), request_timeout=_TIMEOUT_S).values():
        future.result()


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line: 0 when everything is granted, 3 when the broker refuses or is not there."""
    parser = argparse.ArgumentParser(prog="python -m deploy.kafka.apply_acls", description="Grants ACLs of a file.")
    parser.add_argument("file", type=Path, help="what 'tidegate topics acls --json --out' wrote")
    parser.add_argument("--bootstrap-servers", required=True, help="brokers, host:port[,host:port]")
    parser.add_argument("--config", type=Path, help="librdkafka's keys of an administrator, key=value a line")
    parser.add_argument("--all", action="store_true", help="what is needed in some cases only, too")
    given = parser.parse_args(arguments)
    lines = given.config.read_text().splitlines() if given.config else []
    properties = dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    wanted = bindings(json.loads(given.file.read_bytes()), all_cases=given.all)
    try:
        grant(AdminClient({**properties, "bootstrap.servers": given.bootstrap_servers}), wanted)
    except KafkaException as error:
        print(f"{given.bootstrap_servers}: nothing more was granted: {error.args[0].str()}.", file=sys.stderr)
        return 3
    print(f"{len(wanted)} permissions granted on {given.bootstrap_servers}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
