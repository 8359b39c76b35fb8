"""Rolls one instance after the other, in the order of their names, and stops at the first that fails.

Every call runs in a fresh interpreter: globals are lost. There is no clock, no file and no network; the instant and a
seed come from `context`. An exception ends the call without a decision; its text is lost, so log before you raise.
"""

import json

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.plugin import Manifest, SettingsIssue
from wit_world.exports.update import (
    Pause, Plan, Roll, Rollout, Step, Step_Complete, Step_Halt, Step_Hold, Step_Proceed,
)
from wit_world.imports import context, instances
from wit_world.imports.types import Reason

LOOK_AGAIN_MS = 10_000
UNDER_WAY, SUCCEEDED = 0, 1

DEFAULTS = {"soak_ms": 60_000, "checkpoint": True}
SCHEMA = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "{{name}}",
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "soak_ms": {
            "description": "An instance must stay healthy for this long before the next one rolls.",
            "type": "integer", "minimum": 0, "maximum": 86400000, "default": 60000,
        },
        "checkpoint": {
            "description": "Take a checkpoint first, to come back to.",
            "type": "boolean", "default": True,
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
        if not is_integer(given["soak_ms"], 0, 86400000):
            issues.append(SettingsIssue(path="/soak_ms", message="give 0 to 86400000 milliseconds"))
        if not isinstance(given["checkpoint"], bool):
            issues.append(SettingsIssue(path="/checkpoint", message="give true or false"))
        if issues:
            raise Err(issues)


class Update(exports.Update):
    def next_step(self, rollout: Rollout, state: bytes) -> Plan:
        # Where the rollout stands follows from its outcomes: there is nothing to remember.
        return Plan(next=step(rollout), next_call=LOOK_AGAIN_MS, state=b"")


def step(rollout: Rollout) -> Step:
    for outcome in rollout.outcomes:
        if outcome.status == UNDER_WAY:
            reasons = [reason("one-at-a-time", f"{outcome.instance} is under way")]
            return Step_Hold(Pause(retry_after=LOOK_AGAIN_MS, reasons=reasons))
        # Also what a later contract may add: a policy treats a code it does not know as not eligible.
        if outcome.status != SUCCEEDED:
            return Step_Halt([reason("a-roll-failed", f"{outcome.instance} did not come through")])
    # A version that no instance runs is no symbol: 0, which no instance has.
    target = context.find_symbol(rollout.target)
    for index, version in enumerate(instances.versions()):
        if target == 0 or version != target:
            settings = DEFAULTS | json.loads(context.settings())
            reasons = [reason("next-in-order", "the next by name")]
            roll = Roll(
                instance=index, soak=settings["soak_ms"], checkpoint=settings["checkpoint"], reasons=reasons
            )
            return Step_Proceed([roll])
    return Step_Complete([reason("all-at-target", f"all run {rollout.target}")])


def reason(code: str, text: str) -> Reason:
    return Reason(code=code, text=text, weight=0.0)



def is_integer(value, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most
