"""librdkafka's properties as Faust understands them."""

from __future__ import annotations

from typing import Any

import pytest
from faust.auth import SASLCredentials

from stream.errors import UsageError
from stream.runtime.feedback.credentials import credentials


def test_sasl_is_passed_on_with_and_without_tls() -> None:
    given = {"sasl.mechanism": "SCRAM-SHA-512", "sasl.username": "fb", "sasl.password": "s3cret"}
    plain = credentials({"security.protocol": "SASL_PLAINTEXT", **given})
    assert isinstance(plain, SASLCredentials)
    assert (plain.protocol.value, plain.mechanism.value, plain.username) == ("SASL_PLAINTEXT", "SCRAM-SHA-512", "fb")
    assert "s3cret" not in repr(plain)
    sealed: Any = credentials(
        {"security.protocol": "sasl_ssl", **given, "ssl.endpoint.identification.algorithm": "none"}
    )
    assert sealed.protocol.value == "SASL_SSL"
    assert sealed.ssl_context.check_hostname is False


def test_tls_alone_checks_the_brokers_name() -> None:
    found: Any = credentials({"security.protocol": "ssl"})
    assert found.protocol.value == "SSL"
    assert found.context.check_hostname is True


@pytest.mark.parametrize(
    ("properties", "said"),
    [
        ({"sasl.kerberos.service.name": "kafka"}, "kafka.properties.sasl.kerberos.service.name cannot be passed on"),
        ({"security.protocol": "sasl_ssl", "sasl.mechanism": "OAUTHBEARER"}, "sasl.mechanism must be one of PLAIN"),
        ({"security.protocol": "tls"}, "security.protocol must be one of plaintext, ssl"),
        (
            {"security.protocol": "sasl_plaintext", "sasl.mechanism": "PLAIN", "sasl.username": "a"},
            "_SASL_PASSWORD_FILE",
        ),
        ({"security.protocol": "ssl", "ssl.ca.location": "/nowhere"}, "the certificates cannot be loaded"),
    ],
)
def test_what_cannot_be_passed_on_is_refused(properties: dict[str, str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        credentials(properties)
