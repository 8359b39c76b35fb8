"""Takes a checkpoint at a fixed interval and keeps the newest.

Every call runs in a fresh interpreter: globals are lost. There is no clock, no file and no network; the instant and a
seed come from `context`. An exception ends the call without a decision; its text is lost, so log before you raise.
"""

import json

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.checkpoint import Discard, Plan, Subject, Take
from wit_world.exports.plugin import Manifest, SettingsIssue
from wit_world.imports import checkpoints, context
from wit_world.imports.types import Reason

PAUSE_MAX_MS = 5000

DEFAULTS = {"interval_ms": 3_600_000, "keep": 24}
SCHEMA = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "{{name}}",
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "interval_ms": {
            "description": "Time between two checkpoints.",
            "type": "integer", "minimum": 60000, "maximum": 86400000, "default": 3600000,
        },
        "keep": {
            "description": "Newest checkpoints that stay; pinned ones stay besides.",
            "type": "integer", "minimum": 1, "maximum": 1000, "default": 24,
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
        given = DEFAULTS | given
        if not is_integer(given["interval_ms"], 60000, 86400000):
            issues.append(SettingsIssue(path="/interval_ms", message="give 60000 to 86400000 milliseconds"))
        if not is_integer(given["keep"], 1, 1000):
            issues.append(SettingsIssue(path="/keep", message="give 1 to 1000 checkpoints"))
        if issues:
            raise Err(issues)


class Checkpoint(exports.Checkpoint):
    def schedule(self, subject: Subject, state: bytes) -> Plan:
        settings = DEFAULTS | json.loads(context.settings())
        interval, keep = settings["interval_ms"], settings["keep"]
        # Oldest first: the last is the newest.
        times = checkpoints.taken()
        age = max(context.now() - times[-1], 0) if times else None
        due = age is None or age >= interval
        take = None
        if due:
            text = "there is none yet" if age is None else f"the newest is {age // 1000} s old"
            take = Take(with_memory=False, pause_max=PAUSE_MAX_MS, reasons=[reason("interval-over", text)])
        # The new one counts: it is there before any is dropped.
        stay = keep - due
        old = list(enumerate(checkpoints.pinned()))[: max(len(times) - stay, 0)]
        why = [reason("enough-newer-ones", f"{stay} newer ones are there")]
        discards = [Discard(checkpoint=index, reasons=why) for index, pinned in old if not pinned]
        return Plan(take=take, discards=discards, next_call=interval if due else interval - age, state=b"")


def reason(code: str, text: str) -> Reason:
    return Reason(code=code, text=text, weight=0.0)



def is_integer(value, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most
