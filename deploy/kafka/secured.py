"""A real Kafka on loopback as production has one: TLS, SASL (SCRAM-SHA-512 and PLAIN), and an authorizer.

```
python -m deploy.kafka.secured DIR     # a broker until Ctrl-C; DIR gets client properties and passwords of each user
```

Every listener asks who is there, the controller's too. Whoever is no super user may do what ACLs say and nothing else.
"""

from __future__ import annotations

import argparse
import secrets
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from deploy.kafka import certificates
from deploy.kafka.local import FAST_START, HOME, KafkaUnavailable, LocalKafka

ADMIN, BROKER = "admin", "broker"
"""Super users: who grants, and the broker itself."""
SCRAM, PLAIN = "SCRAM-SHA-512", "PLAIN"
_MODULES = "org.apache.kafka.common.security"
_SASL = "SASL_SSL"


class SecuredKafka(LocalKafka):
    """As `LocalKafka`, with certificates and passwords made for this run.

    Parameters
    ----------
    users
        Who may connect, beside `ADMIN`: names of principals without `User:`.
    properties, jvm_options, home, data_dir
        As in `LocalKafka`.
    passwords
        Of users, where they are not to be drawn.

    Attributes
    ----------
    certificates
        While it runs: where the files lie.
    passwords
        Of each user, `ADMIN` and `BROKER` too. Kafka's tool takes those of SCRAM from its command line: for a second
        other processes of this machine can see them.
    """

    certificates: certificates.Certificates

    def __init__(
        self,
        users: Sequence[str],
        properties: Mapping[str, str] | None = None,
        jvm_options: Sequence[str] = FAST_START,
        home: Path = HOME,
        data_dir: Path | None = None,
        passwords: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(properties, jvm_options, home, data_dir)
        self.passwords = {name: secrets.token_urlsafe(18) for name in (ADMIN, BROKER, *users)} | dict(passwords or {})
        self._key_password = secrets.token_urlsafe(18)

    def client(self, user: str, mechanism: str = SCRAM) -> dict[str, str]:
        """What `user` connects with, as librdkafka has it, without the bootstrap servers."""
        return {**self.open_client(user, mechanism), "sasl.password": self.passwords[user]}

    def open_client(self, user: str, mechanism: str = SCRAM) -> dict[str, str]:
        """As `client`, without the password, which comes from elsewhere."""
        return {
            "security.protocol": _SASL,
            "sasl.mechanism": mechanism,
            "sasl.username": user,
            "ssl.ca.location": str(self.certificates.authority),
        }

    def _configuration(self, port: int, controller_port: int, data: Path) -> dict[str, str]:
        held = self.certificates = certificates.make(data / "tls", self._key_password)
        known = " ".join(f'user_{name}="{password}"' for name, password in self.passwords.items())
        login = f'username="{BROKER}" password="{self.passwords[BROKER]}"'
        plain = f"{_MODULES}.plain.PlainLoginModule required {login} {known};"
        return super()._configuration(port, controller_port, data) | {
            "listeners": f"CLIENTS://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}",
            "advertised.listeners": f"CLIENTS://127.0.0.1:{port}",
            "inter.broker.listener.name": "CLIENTS",
            "listener.security.protocol.map": f"CLIENTS:{_SASL},CONTROLLER:{_SASL}",
            "sasl.enabled.mechanisms": f"{SCRAM},{PLAIN}",
            "sasl.mechanism.inter.broker.protocol": SCRAM,
            # What SCRAM knows lies in the metadata log, which a controller has not read yet when it connects.
            "sasl.mechanism.controller.protocol": PLAIN,
            "listener.name.controller.sasl.enabled.mechanisms": PLAIN,
            "listener.name.clients.plain.sasl.jaas.config": plain,
            "listener.name.controller.plain.sasl.jaas.config": plain,
            "listener.name.clients.scram-sha-512.sasl.jaas.config": (
                f"{_MODULES}.scram.ScramLoginModule required {login};"
            ),
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(held.broker),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(held.authority),
            "listener.name.clients.ssl.client.auth": "requested",
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "allow.everyone.if.no.acl.found": "false",
            "super.users": f"User:{ADMIN};User:{BROKER}",
        }

    def _format_flags(self) -> list[str]:
        added = [f"{SCRAM}=[name={name},password={password}]" for name, password in self.passwords.items()]
        return [*super()._format_flags(), *(flag for each in added for flag in ("--add-scram", each))]


def java_properties(kafka: SecuredKafka, user: str) -> str:
    """Client properties of `user` for Kafka's own tools (`--command-config`)."""
    login = f'username="{user}" password="{kafka.passwords[user]}"'
    properties = {
        "security.protocol": _SASL,
        "sasl.mechanism": SCRAM,
        "sasl.jaas.config": f"{_MODULES}.scram.ScramLoginModule required {login};",
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(kafka.certificates.authority),
    }
    return "".join(f"{key}={value}\n" for key, value in properties.items())


def write_passwords(kafka: SecuredKafka, folder: Path) -> dict[str, Path]:
    """A file for each user's password, which nobody else may read: what `…SASL_PASSWORD_FILE` names."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    files = {}
    for user, password in kafka.passwords.items():
        files[user] = folder / f"{user}.password"
        files[user].touch(mode=0o600)
        files[user].write_text(password + "\n")
    return files


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line: run a broker till interrupted."""
    parser = argparse.ArgumentParser(prog="python -m deploy.kafka.secured", description="A secured Kafka on loopback.")
    parser.add_argument("folder", type=Path, help="where passwords and an administrator's properties go")
    parser.add_argument("--users", default="", help="names, by commas, beside 'admin'")
    given = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        with SecuredKafka([name for name in given.users.split(",") if name]) as kafka:
            write_passwords(kafka, given.folder)
            administrator = given.folder / "admin.properties"
            administrator.touch(mode=0o600)
            administrator.write_text(java_properties(kafka, ADMIN))
            print(f"{kafka.bootstrap_servers} {kafka.certificates.authority}", flush=True)
            signal.pause()
    except KafkaUnavailable as error:
        print(f"secured kafka: {error}", file=sys.stderr)
        return 3
    except KeyboardInterrupt:
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
