"""`make demo`: captured traffic through a real Kafka, findings on the screen."""

import argparse
import shutil
import signal
import sys
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import orjson
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from tidegate.demo.cluster import Cluster, cluster
from tidegate.demo.feeder import Fed, capture, feed
from tidegate.demo.permissions import grant_permissions
from tidegate.demo.process import CommandError, Service, environment, run
from tidegate.demo.release import sample_release
from tidegate.demo.tally import Row, Tally, rows
from tidegate.demo.watch import Watch

ROOT = Path(__file__).resolve().parents[2]
RAW = "gateways.raw"
PARTITIONS = 8
SESSION_FPR = "0.03"
"""The demo's operating point: a SOC that would rather look at three benign sessions in a hundred than miss more."""
RARE_P = 0.1
"""Above it a signal is no part of why."""
_READY_S, _DRAIN_S = 180.0, 180.0
_COLOURS = {"Low": "cyan", "Medium": "yellow", "High": "red", "Critical": "bold red"}


def main() -> int:
    """Run the demo; 0 when every event that was sent has its score."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--seconds", type=float, default=25.0, help="how long to stream the four days (default: 25)")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "demo", help="where everything goes")
    parser.add_argument("--release", type=Path, help="score with this release (default: train one)")
    parser.add_argument("--secure", action="store_true", help="on a broker with TLS, SCRAM and ACLs")
    given = parser.parse_args()
    out: Path = given.out
    console = Console(highlight=False, soft_wrap=True)
    signal.signal(signal.SIGTERM, interrupt)
    out.mkdir(parents=True, exist_ok=True)
    for stale in out.glob("*.json*"):
        stale.unlink()
    try:
        return _demo(console, out, given.release, given.seconds, secure=given.secure)
    except KeyboardInterrupt:
        console.print("\nStopped; Kafka and the services are down.")
        return 130
    except CommandError as error:
        console.print(f"[red]demo: {escape(str(error))}[/red]")
        return 1


def _demo(console: Console, out: Path, given: Path | None, seconds: float, *, secure: bool) -> int:
    started = time.monotonic()
    traffic = capture()
    release = given or sample_release(console, out)
    console.print("Starting Kafka …")
    with cluster(out / "kafka", secure=secure) as kafka:
        how = ", TLS, SCRAM and ACLs on" if secure else ""
        where = f"on {kafka.bootstrap_servers}{how}"
        console.print(f"Kafka {where}{'' if kafka.ours else f', topics under {kafka.prefix}'}")
        setting = environment(
            KAFKA_BOOTSTRAP_SERVERS=kafka.bootstrap_servers,
            TIDEGATE_TOPICS__PREFIX=kafka.prefix,
            TIDEGATE_TOPICS__PARTITIONS=str(PARTITIONS),
            TIDEGATE_DECISION__SESSION_FPR=SESSION_FPR,
        )
        raw = f"{kafka.prefix}{RAW}"
        administrator = setting | kafka.variables("admin")
        run(["topics", "create", "--source-topic", raw], administrator, out / "topics.log")
        if secure:
            granted = grant_permissions(kafka, raw, administrator, out)
            console.print(f"{granted} permissions granted, to each service what it needs: {out / 'acls.json'}")
        ingest = ["ingest", "--source-topic", raw, "--format", "auto", "--group-id", kafka.group("ingest")]
        score = ["score", "--release", str(release), "--group-id", kafka.group("score")]
        with (
            Service(ingest, setting | kafka.variables("ingest"), out / "ingest.log") as ingesting,
            Service(score, setting | kafka.variables("score"), out / "score.log") as scoring,
        ):
            ready = [service.ready(_READY_S) for service in (ingesting, scoring)]
            for name, said in zip(("ingest", "score"), ready, strict=True):
                console.print(f"{name} is ready: pid {said['pid']}, metrics on {said['http']}/metrics")
            tally, fed = _stream(console, kafka, traffic, seconds, [ingesting, scoring])
    return _finish(console, out, tally, fed, len(traffic), release, time.monotonic() - started)


def _stream(
    console: Console, kafka: Cluster, traffic: list[Any], seconds: float, services: list[Service]
) -> tuple[Tally, Fed]:
    tally = Tally()
    topic = f"{kafka.prefix}genai.anomaly."
    stop = threading.Event()
    progress = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console
    )

    def show(record: dict[str, Any]) -> None:
        tally.finding(record)
        if record["activity_id"] == 1:
            progress.console.print(_line(record))

    watches = [
        Watch(kafka.bootstrap_servers, f"{topic}{name}.v1", PARTITIONS, seen, kafka.properties("explain"))
        for name, seen in (("scores", tally.score), ("findings", show))
    ]
    for watch in watches:
        watch.start()
    fed = Fed()
    try:
        with progress:
            sent = progress.add_task("sent", total=len(traffic))
            scored = progress.add_task("scored", total=len(traffic))
            gateway = kafka.properties("gateway")
            for fed in feed(traffic, kafka.bootstrap_servers, f"{kafka.prefix}{RAW}", seconds, stop, gateway):
                for service in services:
                    service.check()
                day = time.strftime("%a %H:%M", time.gmtime(fed.time_ms / 1000))
                progress.update(sent, completed=fed.events, description=f"sent, {day}")
                progress.update(scored, completed=tally.scored)
            deadline = time.monotonic() + _DRAIN_S
            while tally.scored < fed.events and time.monotonic() < deadline:
                for service in services:
                    service.check()
                progress.update(scored, completed=tally.scored)
                stop.wait(0.1)
            progress.update(scored, completed=tally.scored)
    finally:
        for watch in watches:
            watch.stop()
    return tally, fed


def _line(record: dict[str, Any]) -> str:
    """A finding in two lines: what, where, how rare, and the segment that shows it."""
    severity = record["severity"]
    said = record["unmapped"]
    # The rarest first, and what is not rare not at all; of a tenant's drift there is no p-value but a title.
    rare = sorted((p, name) for name, p in said.get("p", {}).items() if p <= RARE_P)
    signals = ", ".join(f"{name} p={p:.2g}" for p, name in rare) or record["finding_info"]["title"]
    attacks = record["finding_info"].get("attacks", [])
    atlas = ", ".join((attack.get("sub_technique") or attack["technique"])["uid"] for attack in attacks)
    excerpts = [evidence["data"] for evidence in record.get("evidences", [])]
    shown = f"{excerpts[0]['role']}: {' '.join(excerpts[0]['excerpt'].split())}" if excerpts else "no text"
    colour = _COLOURS.get(severity, "white")
    head = f"{record['metadata']['tenant_uid']}  {said['entity']}  {signals}  {atlas}"
    return f"[{colour}]{severity:<8}[/{colour}] {escape(head)}\n         [dim]{escape(shown[:160])}[/dim]"


def _finish(console: Console, out: Path, tally: Tally, fed: Fed, expected: int, release: Path, seconds: float) -> int:
    with (out / "findings.jsonl").open("wb") as file:
        file.writelines(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE) for record in tally.findings)
    attacks, benign = rows(fed.sessions, tally.sessions)
    summary = {
        "events": tally.scored,
        "events_sent": fed.events,
        "findings": tally.created,
        "attack_sessions": sum(row.sessions for row in attacks),
        "attack_sessions_found": sum(row.flagged for row in attacks),
        "benign_sessions": sum(row.sessions for row in benign),
        "benign_sessions_flagged": sum(row.flagged for row in benign),
        "decisions": dict(tally.decisions),
        "release": orjson.loads((release / "manifest.json").read_bytes())["name"],
        "seconds": round(seconds, 1),
    }
    (out / "summary.json").write_bytes(orjson.dumps(summary, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS))
    console.print(_table("Attack sessions by family", "found", attacks))
    console.print(_table("Benign sessions by source", "flagged", benign))
    console.print(
        f"{tally.scored} events, {tally.created} findings, {seconds:.0f} s. "
        f"Attacks: {summary['attack_sessions_found']} of {summary['attack_sessions']} sessions found, "
        f"{sum(row.sessions - row.flagged for row in attacks)} missed. "
        f"False positives: {summary['benign_sessions_flagged']} of {summary['benign_sessions']} benign sessions."
    )
    console.print(f"Findings: {out / 'findings.jsonl'}   figures: {out / 'summary.json'}   logs: {out}/*.log")
    console.print(
        "Next: replay the same traffic without a broker, and compare a run with itself:\n"
        f"  .venv/bin/tidegate replay --input sample/live.jsonl.gz --format corpus "
        f"--release {release} --out out/replay\n"
        "  or point it at your own cluster: KAFKA_BOOTSTRAP_SERVERS=host:9092 make demo"
    )
    if tally.scored != expected:
        console.print(f"[red]{expected - tally.scored} events have no score: see {out / 'score.log'}[/red]")
        return 1
    shutil.rmtree(out / "kafka", ignore_errors=True)
    return 0


def _table(title: str, verb: str, counted: list[Row]) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("kind")
    table.add_column("sessions", justify="right")
    table.add_column(verb, justify="right")
    for row in counted:
        table.add_row(row.kind, str(row.sessions), str(row.flagged))
    table.add_row("all", str(sum(r.sessions for r in counted)), str(sum(r.flagged for r in counted)), style="bold")
    return table


def interrupt(number: int, frame: FrameType | None) -> NoReturn:
    """End as Ctrl-C does, on SIGTERM too."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
