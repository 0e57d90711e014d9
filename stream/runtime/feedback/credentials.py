"""`[kafka.properties]`, which speak librdkafka's language, as Faust and aiokafka understand them."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any

from faust.auth import SASLCredentials, SSLCredentials

from stream.errors import UsageError
from stream.runtime.settings import is_secret

_PROTOCOLS = ("plaintext", "ssl", "sasl_plaintext", "sasl_ssl")
_MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
_KNOWN = frozenset(
    {
        "security.protocol", "sasl.mechanism", "sasl.mechanisms", "sasl.username", "sasl.password", "ssl.ca.location",
        "ssl.certificate.location", "ssl.key.location", "ssl.key.password", "ssl.endpoint.identification.algorithm",
    }
)  # fmt: skip
_WITHOUT_MEANING = frozenset({"socket.keepalive.enable", "client.id"})
"""Properties that change nothing of what `feedback` does."""


def credentials(properties: Mapping[str, str]) -> Any:
    """Faust's `broker_credentials`; None for a plain connection.

    Raises
    ------
    UsageError
        For a property that cannot be passed on, or whose value has no counterpart.

    >>> credentials({}) is None
    True
    """
    if unknown := sorted(properties.keys() - _KNOWN - _WITHOUT_MEANING):
        raise UsageError(
            f"kafka.properties.{unknown[0]} cannot be passed on to Faust, which feedback runs on; it takes "
            f"{', '.join(sorted(_KNOWN))}. Leave it out, or give feedback a configuration file of its own with "
            "--config."
        )
    protocol = _one_of(properties, "security.protocol", "plaintext", _PROTOCOLS).lower()
    context = _context(properties) if protocol.endswith("ssl") else None
    if not protocol.startswith("sasl"):
        return SSLCredentials(context=context) if context is not None else None
    mechanisms = "sasl.mechanisms" if "sasl.mechanisms" in properties else "sasl.mechanism"
    mechanism = _one_of(properties, mechanisms, "GSSAPI", _MECHANISMS).upper()
    for name in ("sasl.username", "sasl.password"):
        if not properties.get(name):
            raise UsageError(f"kafka.properties.{name} must be set for {mechanism}; got nothing. {_how(name)}")
    return SASLCredentials(
        username=properties["sasl.username"],
        password=properties["sasl.password"],
        mechanism=mechanism,
        ssl_context=context,
    )


def _one_of(properties: Mapping[str, str], name: str, default: str, known: tuple[str, ...]) -> str:
    value = properties.get(name, default)
    if value.lower() not in {each.lower() for each in known}:
        raise UsageError(
            f"kafka.properties.{name} must be one of {', '.join(known)} for feedback, which Faust runs; got {value!r}."
        )
    return value


def _context(properties: Mapping[str, str]) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=properties.get("ssl.ca.location"))
        if certificate := properties.get("ssl.certificate.location"):
            context.load_cert_chain(
                certificate, properties.get("ssl.key.location"), properties.get("ssl.key.password") or None
            )
    except (OSError, ssl.SSLError) as error:
        raise UsageError(
            f"kafka.properties.ssl.*: the certificates cannot be loaded: {error}. Check ssl.ca.location, "
            "ssl.certificate.location, ssl.key.location and ssl.key.password."
        ) from error
    algorithm = _one_of(properties, "ssl.endpoint.identification.algorithm", "https", ("https", "none"))
    context.check_hostname = algorithm.lower() == "https"
    return context


def _how(name: str) -> str:
    variable = f"TIDEGATE_KAFKA__PROPERTIES__{name.upper().replace('.', '_')}"
    return f"Set {variable}, or {variable}_FILE." if is_secret(name) else f"Set {variable}."
