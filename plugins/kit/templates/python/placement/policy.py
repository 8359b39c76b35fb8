"""Takes the host with the largest share of free memory.

Every call runs in a fresh interpreter: globals are lost. There is no clock, no file and no network; the instant and a
seed come from `context`. An exception ends the call without a decision; its text is lost, so log before you raise.
"""

import json

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.placement import Choice, Deferral, Placed, Request, Verdict, Verdict_Defer, Verdict_Place
from wit_world.exports.plugin import Manifest, SettingsIssue
from wit_world.imports import cluster, context
from wit_world.imports.types import Reason

GIB = 1 << 30
RETRY_AFTER_MS = 10_000
DEFAULTS = {"points": 100, "candidates": 64}
SCHEMA = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "{{name}}",
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "points": {
            "description": "What a host is worth whose memory is all free.",
            "type": "number", "minimum": 0, "maximum": 1000, "default": 100,
        },
        "candidates": {
            "description": "Hosts that are looked at: more choice, more time.",
            "type": "integer", "minimum": 1, "maximum": 20000, "default": 64,
        },
    },
}


class Plugin(exports.Plugin):
    def describe(self) -> Manifest:
        return Manifest(
            name="{{name}}",
            version="0.1.0",
            summary="What this policy does, in one sentence.",
            license="Apache-2.0",
            settings_schema=json.dumps(SCHEMA),
            default_settings="{}",
        )

    def validate_settings(self, settings: str) -> None:
        issues = []
        try:
            given = json.loads(settings)
        except ValueError as error:
            raise Err([SettingsIssue(path="", message=str(error))])
        for key in given.keys() - DEFAULTS.keys():
            issues.append(SettingsIssue(path=f"/{key}", message="there is no such setting"))
        points, candidates = given.get("points", 100), given.get("candidates", 64)
        if not is_number(points) or not 0 <= points <= 1000:
            issues.append(SettingsIssue(path="/points", message="give a number from 0 to 1000"))
        if not is_number(candidates) or int(candidates) != candidates or not 1 <= candidates <= 20_000:
            issues.append(SettingsIssue(path="/candidates", message="give 1 to 20000 hosts"))
        if issues:
            raise Err(issues)


class Placement(exports.Placement):
    def place(self, request: Request) -> Verdict:
        settings = DEFAULTS | json.loads(context.settings())
        # Hosts that meet every hard limit, found natively: at most so many, whichever the call's seed picks.
        hosts = cluster.feasible(settings["candidates"])
        if not hosts:
            reasons = [Reason(code="no-host-fits", text="no host has room for it", weight=0.0)]
            return Verdict_Defer(Deferral(retry_after=RETRY_AFTER_MS, reasons=reasons, rejections=[]))
        choices = [choice(settings, request, row) for row in cluster.rows(hosts)]
        # Ties go to the host that is first by name, so that the same question has one answer.
        choices.sort(key=lambda choice: (-choice.score, choice.host))
        return Verdict_Place(Placed(choices=choices[: request.choices_max], rejections=[]))


def choice(settings: dict, request: Request, row: cluster.HostRow) -> Choice:
    left = max(row.memory_free_bytes - request.memory_bytes, 0)
    score = float(settings["points"]) * (left / row.memory_total_bytes if row.memory_total_bytes else 0.0)
    text = f"{left // GIB} of {row.memory_total_bytes // GIB} GiB of memory stay free"
    return Choice(host=row.host, score=score, reasons=[Reason(code="memory-left", text=text, weight=score)])


def is_number(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
