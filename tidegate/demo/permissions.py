"""Permissions of a demo's services, as `tidegate topics acls` has them."""

import json
from pathlib import Path

from confluent_kafka.admin import AdminClient

from deploy.kafka.apply_acls import bindings, grant
from tidegate.demo.cluster import Cluster
from tidegate.demo.process import run


def grant_permissions(kafka: Cluster, raw: str, setting: dict[str, str], out: Path) -> int:
    """Grant each command what it always needs, and no more; how many permissions that are.

    What is granted lies in `out/acls.json` afterwards.
    """
    assert kafka.broker is not None
    file = out / "acls.json"
    run(["topics", "acls", "--source-topic", raw, "--json", "--out", str(file)], setting, out / "acls.log")
    wanted = bindings(json.loads(file.read_bytes()))
    grant(AdminClient({**kafka.broker.client("admin"), "bootstrap.servers": kafka.bootstrap_servers}), wanted)
    return len(wanted)
