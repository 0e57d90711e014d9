"""`tidegate release lineage`: from a finding or a release to everything that made it, and what was learned from it."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import orjson

from schemas.label import Label
from schemas.manifest import Manifest
from schemas.safe_text import safe_text
from schemas.undecodable import UNDECODABLE
from schemas.verdict import VERDICTS, Verdict
from stream.config import Settings
from stream.errors import StateError, UsageError
from stream.runtime.release.catalog import Told, ask_broker, look, trust_in
from stream.runtime.release.listing import describe
from stream.runtime.release.registry import Registry, without_trust
from stream.runtime.release.words import Node, counted, time_of
from stream.runtime.release_store import read_manifest
from stream.runtime.topic_reader import TopicReader
from stream.steps.route import partition_of_key

_UID = re.compile(r"[0-9a-f]{32}")
_TEXT_CHARS = 300
_NAME_CHARS = 256
_VERDICT = msgspec.json.Decoder(Verdict)
_LABEL = msgspec.json.Decoder(Label)


@dataclass(frozen=True, slots=True)
class AboutFinding:
    """What the topics still hold of one finding."""

    uid: str
    revisions: list[dict[str, Any]] = field(default_factory=list)
    """Its records, by revision."""
    verdicts: list[Verdict] = field(default_factory=list)
    """In the order of arrival."""
    labels: dict[str, Label] = field(default_factory=dict)
    """Analyst -> the last label."""

    @property
    def releases(self) -> list[str]:
        """Those that found it: the one that opened it first."""
        found = [str(each["unmapped"]["release"]) for each in self.revisions]
        return list(dict.fromkeys(found or [each.release for each in self.labels.values()]))


@dataclass(frozen=True, slots=True)
class Link:
    """One release of a chain."""

    name: str
    path: Path | None
    manifest: Manifest | None
    fault: str
    """Why its manifest cannot be had; empty where it can."""
    signed: str
    told: dict[str, Any]
    """What the releases topic and the journal say of it."""

    @property
    def parent(self) -> str | None:
        """Name of the release that it followed, as far as anybody knows."""
        if self.manifest is not None:
            return self.manifest.parent
        parent = self.told.get("parent")
        return str(parent) if parent is not None else None


def run_lineage(settings: Settings, arguments: argparse.Namespace) -> int:
    """Print where a finding or a release comes from.

    Raises
    ------
    TidegateError
        With the exit code that says what is wrong.
    """
    uid = arguments.of if _UID.fullmatch(arguments.of) else None
    finding: AboutFinding | None = None
    if uid is not None:
        with closing(TopicReader(settings, "release")) as reader:
            finding = about_finding(reader, settings, uid)
    told = ask_broker(settings)
    names = finding.releases if finding is not None else [_named(settings, told, arguments.of)]
    learned = learned_from(settings, told, uid) if uid is not None else []
    if finding is not None and not names and not learned and not finding.verdicts:
        raise UsageError(
            f"finding {uid} is neither on {settings.topics.findings} nor behind any label or release. Give "
            "finding_info.uid of a finding that its retention has kept, and the --topic-prefix and --output-prefix "
            "that score has."
        )
    chains = [chain(settings, told, name, arguments.of if finding is None else None) for name in names]
    if arguments.json:
        print(orjson.dumps(_plain(finding, chains, learned, told), option=orjson.OPT_SORT_KEYS).decode())
    else:
        print("\n".join(_tree(finding, chains, learned).lines()))
        if told.unasked:
            print(f"\nThe broker was not asked, so announcements are not known: {told.unasked}")
    return 0


# -- the finding -------------------------------------------------------------------------------------------------------


def about_finding(reader: TopicReader, settings: Settings, uid: str) -> AboutFinding:
    """What the topics hold of a finding; a topic that is not there holds nothing.

    Raises
    ------
    EnvironmentFault
        When no broker answers.
    """
    topics, about = settings.topics, AboutFinding(uid)
    for key, value in _of_finding(reader, topics.findings, uid):
        if key == uid.encode():
            about.revisions.append(orjson.loads(value))
    about.revisions.sort(key=lambda record: int(record["metadata"]["sequence"]))
    for key, value in _of_finding(reader, topics.verdicts, uid):
        if key == uid.encode() and (verdict := _decoded(_VERDICT, value)) is not None:
            about.verdicts.append(verdict)
    for _, value in _of_finding(reader, topics.labels, uid):
        label = _decoded(_LABEL, value)
        if label is not None and label.finding_uid == uid:
            about.labels[label.analyst] = label
    return about


def _of_finding(reader: TopicReader, topic: str, uid: str) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of the one partition in which a finding's records are; only those whose key names it."""
    if topic not in reader:
        return
    partition = partition_of_key(uid.encode(), reader.partitions(topic))
    bounds = reader.bounds(topic)[partition]
    for records in reader.read(topic, partition, bounds.start, bounds.end):
        for record in records:
            if record.key is not None and record.value is not None and uid.encode() in record.key:
                yield record.key, record.value


def _decoded(decoder: msgspec.json.Decoder[Any], value: bytes) -> Any:
    try:
        return decoder.decode(value)
    except UNDECODABLE:
        # A verdict may come from anybody; `feedback` makes a dead letter of it.
        return None


def learned_from(settings: Settings, told: Told, uid: str) -> list[str]:
    """Releases in whose labels a finding's verdicts were, the oldest first."""
    manifests = {manifest.name: manifest for _, manifest in Registry(settings).manifests()}
    for said in told.announcements:
        for name in (said.release, *(each.release for each in said.earlier)):
            if name not in manifests:
                _, found = look(settings, told, name)
                if isinstance(found, Manifest):
                    manifests[name] = found
    learned = [
        manifest
        for manifest in manifests.values()
        if manifest.data.labels is not None and uid in manifest.data.labels.findings
    ]
    return [manifest.name for manifest in sorted(learned, key=lambda each: (each.created_ms, each.name))]


# -- releases ----------------------------------------------------------------------------------------------------------


def _named(settings: Settings, told: Told, given: str) -> str:
    """The name of a release that is given by name, path or URI; one that is only announced counts too."""
    try:
        path = Registry(settings).path_of(given)
    except UsageError:
        known = {each.release for each in told.served.values()}
        for said in told.announcements:
            known |= {said.release, *(each.release for each in said.earlier), *filter(None, [said.parent])}
        known |= {manifest.parent for _, manifest in Registry(settings).manifests() if manifest.parent is not None}
        if given in known:
            return given
        raise
    return read_manifest(path, without_trust(settings)).name


def chain(settings: Settings, told: Told, name: str, given: str | None = None) -> list[Link]:
    """A release and its parents, up to the first, or to one of which nobody knows the parent.

    Parameters
    ----------
    given
        A path or URI at which the first is, where it is not to be found by its name.
    """
    links: list[Link] = []
    wanted: str | None = name
    while wanted is not None and wanted not in {link.name for link in links}:
        links.append(_link(settings, told, wanted, given if not links else None))
        wanted = links[-1].parent
    return links


def _link(settings: Settings, told: Told, name: str, given: str | None) -> Link:
    path, found = look(settings, told, name)
    if not isinstance(found, Manifest) and given is not None:
        try:
            path = Registry(settings).path_of(given)
            found = read_manifest(path, without_trust(settings))
        except (UsageError, StateError) as error:
            found = error
    manifest = found if isinstance(found, Manifest) else None
    return Link(
        name=name,
        path=path,
        manifest=manifest,
        fault="" if isinstance(found, Manifest) else str(found),
        signed=trust_in(path, manifest, settings) if path is not None and manifest is not None else "unknown",
        told=_told_of(told, name),
    )


def _told_of(told: Told, name: str) -> dict[str, Any]:
    """What others than its manifest say of a release."""
    said: dict[str, Any] = {}
    for served in told.served.values():
        if served.release == name and served.ids is not None:
            said |= dict(zip(("space_id", "feature_schema", "state_schema"), served.ids, strict=True))
            said |= {"manifest_sha256": served.manifest_sha256, "uri": served.uri}
    for each in told.announcements:
        said |= {"manifest_sha256": a.manifest_sha256, "uri": a.uri} if (a := _earlier(each.earlier, name)) else {}
        if each.release == name:
            said |= {
                key: value for key, value in msgspec.to_builtins(each).items() if key not in ("earlier", "release")
            }
    return {key: value for key, value in said.items() if value is not None}


def _earlier(earlier: list[Any], name: str) -> Any:
    return next((each for each in earlier if each.release == name), None)


# -- in words ----------------------------------------------------------------------------------------------------------


def _tree(finding: AboutFinding | None, chains: list[list[Link]], learned: list[str]) -> Node:
    if finding is None:
        return _chain_tree(chains[0], "release", set())
    tree = Node(_finding_line(finding))
    _judged(tree, finding)
    tree.add("learned from it: " + (", ".join(learned) if learned else "no release yet"))
    described: set[str] = set()
    for number, links in enumerate(chains):
        relation = "found by release" if number == 0 else "then updated by release"
        tree.below.append(_chain_tree(links, relation, described))
    return tree


def _finding_line(finding: AboutFinding) -> str:
    if not finding.revisions:
        return f"finding {finding.uid}: its own records are gone; what its verdicts and labels tell"
    last = finding.revisions[-1]
    about = last["unmapped"]
    state = "closed" if last["activity_id"] == 3 else "open"
    return (
        f'finding {finding.uid}: "{safe_text(last["finding_info"]["title"], _TEXT_CHARS)}", '
        f"{safe_text(str(last.get('severity', '?')), 20)}, {state}; {about['entity_type']} "
        f"{safe_text(about['entity'], _NAME_CHARS)} of {safe_text(last['metadata']['tenant_uid'], _NAME_CHARS)}, "
        f"{counted(last['count'], 'event')} from {time_of(last['start_time'])} on"
    )


def _judged(tree: Node, finding: AboutFinding) -> None:
    """Verdicts, and what was made of them."""
    last = {verdict.analyst: verdict for verdict in sorted(finding.verdicts, key=lambda each: each.time)}
    node = tree.add(f"verdicts: {counted(len(finding.verdicts), 'verdict')} of {counted(len(last), 'analyst')}")
    for verdict in finding.verdicts:
        text = (
            f"{safe_text(verdict.analyst, _NAME_CHARS)}, {time_of(verdict.time)}: "
            f"{VERDICTS[verdict.verdict_id]}, of the {verdict.scope}"
        )
        if verdict.adopt:
            text += ", the tenant's new normal"
        if verdict.notes:
            text += f'; "{safe_text("; ".join(verdict.notes), _TEXT_CHARS)}"'
        if last[verdict.analyst] is not verdict:
            text += " (replaced by a later one)"
        node.add(text)
    node = tree.add(f"labels: {counted(len(finding.labels), 'label')}")
    for label in finding.labels.values():
        teaches = label.teaches or "nothing"
        disputed = ", but another analyst says the opposite, so nothing is learned" if label.disputed else ""
        name = f"{safe_text(label.analyst, _NAME_CHARS)} ({label.identity})"
        node.add(f"{name}: {VERDICTS.get(label.verdict_id, '?')} teaches {teaches}{disputed}")


def _chain_tree(links: list[Link], relation: str, described: set[str]) -> Node:
    """A chain, each parent below its child, up to one that was `described` before; more are by then."""
    top = node = Node(f"{relation} {safe_text(links[0].name, _NAME_CHARS)}")
    for number, link in enumerate(links):
        if number > 0 and link.name not in described:
            node = node.add(f"parent {safe_text(link.name, _NAME_CHARS)}")
        elif number > 0:
            node.add(f"parent {safe_text(link.name, _NAME_CHARS)}, which was told of above")
            return top
        described.add(link.name)
        _describe_link(node, link)
    node.add(f"parent {_end(links[-1])}")
    return top


def _end(last: Link) -> str:
    """What is known of the parent of the last release of a chain."""
    if last.parent is not None:
        return f"{safe_text(last.parent, _NAME_CHARS)}, which was told of above"
    if last.manifest is not None:
        return "none: it is the first of its line"
    if "created_time_ms" in last.told:
        return "none, as it was announced: it is the first of its line"
    return "unknown without its directory"


def _describe_link(node: Node, link: Link) -> None:
    if link.manifest is not None:
        describe(node, link.manifest, signed=link.signed)
    else:
        node.add(f"its manifest cannot be read: {link.fault}")
        for key, value in sorted(link.told.items()):
            if key not in ("decision", "promoted", "parent") and value != {}:
                node.add(f"as announced, {key}: {_said(key, value)}")
    if link.told.get("decision"):
        node.add(f"gate: {safe_text(str(link.told['decision']), _TEXT_CHARS)}")


def _said(key: str, value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{safe_text(str(name), 80)} {each:g}" for name, each in sorted(value.items()))
    if key.endswith("_time_ms"):
        return time_of(int(value))
    return safe_text(str(value), _NAME_CHARS)


# -- as JSON -----------------------------------------------------------------------------------------------------------


def _plain(finding: AboutFinding | None, chains: list[list[Link]], learned: list[str], told: Told) -> dict[str, Any]:
    return {
        "finding": _plain_finding(finding) if finding is not None else None,
        "learned_by": learned,
        "chains": [[_plain_link(link) for link in links] for links in chains],
        "broker": told.unasked or None,
    }


def _plain_finding(finding: AboutFinding) -> dict[str, Any]:
    last = finding.revisions[-1] if finding.revisions else None
    return {
        "uid": finding.uid,
        "releases": finding.releases,
        "revisions": len(finding.revisions),
        "title": last["finding_info"]["title"] if last is not None else None,
        "tenant": last["metadata"]["tenant_uid"] if last is not None else None,
        "entity_type": last["unmapped"]["entity_type"] if last is not None else None,
        "entity": last["unmapped"]["entity"] if last is not None else None,
        "verdicts": msgspec.to_builtins(finding.verdicts),
        "labels": [
            {
                "analyst": label.analyst,
                "identity": label.identity,
                "verdict_id": label.verdict_id,
                "verdict_time": label.verdict_time,
                "teaches": label.teaches,
                "disputed": label.disputed,
                "release": label.release,
            }
            for label in finding.labels.values()
        ],
    }


def _plain_link(link: Link) -> dict[str, Any]:
    return {
        "release": link.name,
        "path": str(link.path) if link.path is not None else None,
        "fault": link.fault or None,
        "signature": link.signed,
        "parent": link.parent,
        "manifest": msgspec.to_builtins(link.manifest) if link.manifest is not None else None,
        "told": link.told,
    }
