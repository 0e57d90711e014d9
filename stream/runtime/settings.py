"""Reads the settings once, at start: flag, else environment, else `tidegate.toml`, else default.

Only the standard library: `tidegate config show` has to answer at once.
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_type_hints

from stream.config import Settings
from stream.errors import UsageError
from stream.runtime.logs import MASK

DEFAULT_FILE = Path("tidegate.toml")
FLAG_KEYS = {
    "--bootstrap-servers": "kafka.bootstrap_servers",
    "--topic-prefix": "topics.prefix",
    "--output-prefix": "topics.output_prefix",
    "--http-listen": "http.listen",
}
"""Flags that are settings; every other flag is its command's own."""

_LOGGER = "TIDEGATE_LITELLM__"
"""Settings of `tidegate.litellm`, which may share its environment with the services."""
_ALIASES = {"KAFKA_BOOTSTRAP_SERVERS": "kafka.bootstrap_servers"}
_PROPERTIES = "kafka.properties"
_SECRET = re.compile(r"pas|pwd|secret|(^|\.)key\.pem$|private\.key\.pem$|sasl\.oauthbearer\.config$")
_URL_PASSWORD = re.compile(r"(://[^/?#@\s:]*:)([^/?#@\s]+)@")
_FILE_SUFFIX = re.compile(r"[._]file$")


def _sections() -> dict[str, dict[str, Any]]:
    kinds = get_type_hints(Settings)
    kinds.pop("origins")
    return {section: get_type_hints(kind) for section, kind in kinds.items()}


SECTIONS = _sections()
"""Section -> key -> type, as `stream.config` declares them."""


@dataclass(frozen=True, slots=True)
class _Given:
    """One value as somebody gave it."""

    key: str
    """`section.key`, for raw librdkafka keys `kafka.properties.<key>`."""
    value: Any
    origin: str


def is_secret(name: str) -> bool:
    """Whether the librdkafka key `name`, or one that it was meant to be, holds what nobody may read over a shoulder.

    >>> [is_secret(name) for name in ("sasl.password", "sasl.pasword", "ssl.key.pem", "ssl.certificate.pem")]
    [True, True, True, False]
    """
    return _SECRET.search(name) is not None


def secrets_of(settings: Settings) -> list[str]:
    """What of the settings nobody may see: secret properties, and passwords within addresses."""
    found = [value for name, value in settings.kafka.properties.items() if is_secret(name)]
    addresses = [*settings.kafka.properties.values(), settings.mlflow.tracking_uri]
    return found + [match[2] for address in addresses for match in _URL_PASSWORD.finditer(address)]


def from_arguments(arguments: argparse.Namespace) -> Settings:
    """The settings of a command line, with this process's environment and the file it names.

    Raises
    ------
    UsageError
        As `read_settings`.
    """
    flags = {flag: getattr(arguments, flag.strip("-").replace("-", "_"), None) for flag in FLAG_KEYS}
    return read_settings(
        {flag: value for flag, value in flags.items() if value is not None}, os.environ, arguments.config
    )


def read_settings(flags: Mapping[str, str], environment: Mapping[str, str], file: Path | None = None) -> Settings:
    """The settings, each with its origin.

    Parameters
    ----------
    flags
        Flag, such as `--topic-prefix`, -> what was given for it.
    environment
        `TIDEGATE_<SECTION>__<KEY>`; other names are ignored, and those of `tidegate.litellm`.
    file
        TOML; None takes `tidegate.toml` of the working directory when it is there.

    Raises
    ------
    UsageError
        For a key that does not exist, a value against its rule, a secret in the file, a file that cannot be read.
    """
    values: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
    origins: dict[str, str] = {}
    # From the weakest to the strongest: a later value replaces an earlier one.
    for layer in (_from_file(file), _from_environment(environment), _from_flags(flags)):
        for given in layer:
            section, _, rest = given.key.partition(".")
            name, _, entry = rest.partition(".")
            if entry:
                table = dict(values[section].get(name, {}))
                values[section][name] = table | {entry: given.value}
            else:
                values[section][name] = given.value
            origins[given.key] = given.origin
    built = {section: _build(section, keys, origins) for section, keys in values.items()}
    return Settings(**built, origins=origins)


def _build(section: str, keys: Mapping[str, Any], origins: Mapping[str, str]) -> Any:
    kind = get_type_hints(Settings)[section]
    try:
        return kind(**keys)
    except UsageError as error:
        origin = origins.get(str(error).split(" ", 1)[0])
        raise UsageError(f"{error} It came from {origin}." if origin else str(error)) from None


def _from_flags(flags: Mapping[str, str]) -> Iterator[_Given]:
    for flag, text in flags.items():
        key = FLAG_KEYS[flag]
        yield _Given(key, _from_text(key, text), f"flag {flag}")


def _from_environment(environment: Mapping[str, str]) -> Iterator[_Given]:
    for variable, key in _ALIASES.items():
        if text := environment.get(variable):
            yield _Given(key, _from_text(key, text), f"environment {variable}")
    for variable, text in sorted(environment.items()):
        if not variable.startswith("TIDEGATE_") or "__" not in variable or variable.startswith(_LOGGER):
            continue
        section, _, name = variable.removeprefix("TIDEGATE_").lower().partition("__")
        origin = f"environment {variable}"
        if (section, name[:12]) == ("kafka", "properties__"):
            yield _property(name[12:].replace("_", "."), text, origin)
        else:
            key = _known(section, name, lambda s, n: f"TIDEGATE_{s}__{n}".upper(), origin)
            yield from _table_or_value(key, _from_text(key, text), origin)


def _from_file(file: Path | None) -> Iterator[_Given]:
    if file is None and not DEFAULT_FILE.is_file():
        return
    path = file or DEFAULT_FILE
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(
            f"--config {path}: the file cannot be read: {error.strerror}. Name one that exists."
        ) from error
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits is no TOMLDecodeError
        raise UsageError(f"{path}: not TOML: {error}. See the README for an example.") from error
    for section, keys in content.items():
        if not isinstance(keys, dict):
            _known("", section, lambda s, n: f"[{s}] {n}" if s else n, str(path))
        for name, value in keys.items():
            key = _known(section, name, lambda s, n: f"[{s}] {n}", str(path))
            for given in _table_or_value(key, _from_toml(key, value, str(path)), str(path)):
                name = given.key.removeprefix(f"{_PROPERTIES}.")
                if given.key != name and is_secret(name) and given.origin == str(path):
                    variable = f"TIDEGATE_KAFKA__PROPERTIES__{name.upper().replace('.', '_')}"
                    raise UsageError(
                        f"{path}: {given.key} is a secret, and must not lie in a configuration file. "
                        f"Set {variable}, or {variable}_FILE to a file that holds it."
                    )
                yield given


def _table_or_value(key: str, value: Any, origin: str) -> Iterator[_Given]:
    """Raw librdkafka keys one by one, so that each has its origin and the layers add up; any other value whole."""
    if key == _PROPERTIES and isinstance(value, Mapping):
        for name, text in value.items():
            yield _property(name, text, origin)
    else:
        yield _Given(key, value, origin)


def _property(name: str, text: str, origin: str) -> _Given:
    stem = _FILE_SUFFIX.sub("", name)
    if stem == name or not is_secret(stem):
        return _Given(f"{_PROPERTIES}.{name}", text, origin)
    try:
        secret = Path(text).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{origin}: the file {text} of {_PROPERTIES}.{stem} cannot be read: {error}.") from error
    return _Given(f"{_PROPERTIES}.{stem}", secret, f"{origin} (file {text})")


def _known(section: str, name: str, spelled: Any, origin: str) -> str:
    """`section.name` when there is such a key, else an error that names the nearest."""
    if name in SECTIONS.get(section, {}):
        return f"{section}.{name}"
    every = [spelled(s, n) for s, keys in SECTIONS.items() for n in keys]
    wrong = spelled(section, name)
    near = difflib.get_close_matches(wrong, every, n=1, cutoff=0.75)
    hint = f"did you mean {near[0]}?" if near else "'tidegate config show' lists every key."
    place = "" if wrong in origin else f"{origin}: "
    raise UsageError(f"{place}there is no key {wrong}; {hint}")


def _from_text(key: str, text: str) -> Any:
    """`text` as its key's type; what cannot be that stays text, for the key's own rule to refuse."""
    section, _, name = key.partition(".")
    kind = SECTIONS[section][name]
    try:
        if kind in (int, float):
            return kind(text)
        if kind is str:
            return text
        if kind == tuple[str, ...]:
            return tuple(part.strip() for part in text.split(",") if part.strip())
        return _strings(key, json.loads(text), "environment")
    except (ValueError, RecursionError):
        return text


def _from_toml(key: str, value: Any, origin: str) -> Any:
    section, _, name = key.partition(".")
    kind = SECTIONS[section][name]
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind == tuple[str, ...] and isinstance(value, list):
        return tuple(value)
    return _strings(key, value, origin)


def _strings(key: str, value: Any, origin: str) -> Any:
    """Every property as text, which is what librdkafka takes; TOML reads an unquoted `ssl.ca.location` as tables."""
    if key != _PROPERTIES or not isinstance(value, Mapping):
        return value
    strings: dict[str, str] = {}
    for name, entry in value.items():
        if isinstance(entry, Mapping):
            strings |= {f"{name}.{inner}": text for inner, text in _strings(key, entry, origin).items()}
        elif isinstance(entry, bool):
            strings[name] = str(entry).lower()
        elif isinstance(entry, (str, int, float)):
            strings[name] = str(entry)
        else:
            raise UsageError(
                f"{origin}: {key}.{name} must be text, a number, true or false; got a {type(entry).__name__}."
            )
    return strings


def rows(settings: Settings) -> list[tuple[str, Any, str]]:
    """Key, value and origin of everything, in the order of declaration; secrets masked."""
    table: list[tuple[str, Any, str]] = []
    for section in SECTIONS:
        values = getattr(settings, section)
        for item in fields(values):
            key, value = f"{section}.{item.name}", getattr(values, item.name)
            if key == _PROPERTIES and value:
                for name, text in sorted(value.items()):
                    origin = settings.origins.get(f"{key}.{name}", "default")
                    table.append((f"{key}.{name}", MASK if is_secret(name) else _shown(text), origin))
            else:
                table.append((key, _shown(value), settings.origins.get(key, "default")))
    return table


def _shown(value: Any) -> Any:
    """A value, without the password of an address.

    >>> _shown("postgresql://mlflow:s3cret@db/runs"), _shown("http://mlflow:5000"), _shown(7)
    ('postgresql://mlflow:********@db/runs', 'http://mlflow:5000', 7)
    """
    return _URL_PASSWORD.sub(rf"\1{MASK}@", value) if isinstance(value, str) else value
