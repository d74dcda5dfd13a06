"""`pbserv image info FILE`: what an image file is. No server is asked.

One rule: the first line is OpenGnSys', so that its scripts can read it; what people read comes below it.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any  # Any: JSON values

from pbserv.commands.tables import print_json, show_facts, show_table, size, warn
from pbserv.imaging.formats.detect import kilobytes
from pbserv.imaging.inspection import Report, inspect


def info(path: Path, as_json: bool) -> None:
    reports = inspect(path)
    if as_json:
        values = [_json(report) for report in reports]
        return print_json(values if path.is_dir() else values[0])
    for report in reports:
        print(report.line)
    if len(reports) == 1:
        show_facts([("File", str(reports[0].path)), *_facts(reports[0])])
    else:
        _table(reports)
    return warn(
        f"{report.path}: volumes are missing: {', '.join(report.missing)}" for report in reports if report.missing
    )


def _facts(report: Report) -> list[tuple[str, str]]:
    found = report.found
    return [
        ("Tool", " ".join(word for word in (found.tool, found.version) if word)),
        ("Compressor", report.compressor),
        ("File system", found.file_system),
        ("Label", found.label),
        ("Needs", _exact(found.device_bytes)),
        ("Used", _exact(found.used_bytes)),
        ("Block size", f"{found.block_bytes} B" if found.block_bytes else ""),
        ("Checksum", found.checksum),
        ("Stored", _exact(report.stored_bytes)),
        (
            "Volumes",
            f"{len(report.volumes)}: {report.volumes[0]} to {report.volumes[-1]}" if report.volumes[1:] else "",
        ),
        ("Missing", ", ".join(report.missing)),
        ("From", report.system),
        *found.facts,
    ]


def _table(reports: list[Report]) -> None:
    columns = ("Image", "Tool", "Compressor", "File system", "Needs", "Used", "Stored", "Volumes", "Checksum")
    rows = (
        (
            r.path.name, r.found.tool, r.compressor, r.found.file_system, size(r.found.device_bytes),
            size(r.found.used_bytes) if r.found.used_bytes else "", size(r.stored_bytes),
            str(len(r.volumes)), r.found.checksum,
        )
        for r in reports
    )  # fmt: skip
    show_table(columns, rows, "")


def _exact(count: int) -> str:
    return f"{size(count)} ({count} bytes)" if count else ""


def _json(report: Report) -> dict[str, Any]:
    found = asdict(report.found)
    found["facts"] = {name: value for name, value in report.found.facts if value}
    return {
        "path": str(report.path), "line": report.line, "kilobytes": kilobytes(report.found),
        "compressor": report.compressor, **found, "stored_bytes": report.stored_bytes,
        "volumes": list(report.volumes), "missing": list(report.missing), "system": report.system,
    }  # fmt: skip
