"""Remembers where system calls enter the kernel, and says when that moves. Needs the grant `cpu`.

Every call runs in a fresh interpreter: globals are lost. There is no clock, no file and no network; the instant and a
seed come from `context`. An exception ends the call without a decision; its text is lost, so log before you raise.
"""

import json

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.introspection import Evidence, Finding, Report, Trigger
from wit_world.exports.plugin import Manifest, SettingsIssue
from wit_world.imports import context, guest_cpu
from wit_world.imports.types import PolicyError_Unsupported, Reason

TRIGGER_STARTED = 2
SEVERITY_HIGH = 3

DEFAULTS = {"period_ms": 10_000}
SCHEMA = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "{{name}}",
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "period_ms": {
            "description": "Time between two looks.",
            "type": "integer", "minimum": 100, "maximum": 86400000, "default": 10000,
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
        if not is_integer(given["period_ms"], 100, 86400000):
            issues.append(SettingsIssue(path="/period_ms", message="give 100 to 86400000 milliseconds"))
        if issues:
            raise Err(issues)


class Introspection(exports.Introspection):
    def inspect(self, trigger: Trigger, state: bytes) -> Report:
        settings = DEFAULTS | json.loads(context.settings())
        try:
            (entry,) = guest_cpu.registers(0, ["lstar"])
        except Err as error:
            raise Err(PolicyError_Unsupported(f"the registers cannot be read: {explain(error.value)}"))
        # The guest was started: what was remembered is of another run. A state that another version wrote is no state.
        known = None
        if len(state) == 8 and trigger.kind != TRIGGER_STARTED:
            known = int.from_bytes(state, "little")
        findings = [moved(known, entry)] if known is not None and known != entry else []
        return Report(
            findings=findings,
            reasons=[reason("looked-at-registers", f"system calls enter at {entry:#x}")],
            next_call=settings["period_ms"],
            # What was first seen stays what is right.
            state=(entry if known is None else known).to_bytes(8, "little"),
        )


def moved(known: int, entry: int) -> Finding:
    text = f"lstar was {known:#x} and is {entry:#x}"
    return Finding(
        rule="linux/system-call-entry-moved",
        severity=SEVERITY_HIGH,
        confidence=0.9,
        title="The guest's system calls enter the kernel at another address than before.",
        fingerprint=f"lstar:{entry:#x}",
        evidence=[Evidence(kind="register", address=entry, text=text, bytes=b"")],
        proposals=["alert"],
    )


def explain(error) -> str:
    value = getattr(error, "value", None)
    return f"denied: {value}" if value else type(error).__name__


def reason(code: str, text: str) -> Reason:
    return Reason(code=code, text=text, weight=0.0)



def is_integer(value, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most
