// Rolls one instance after the other, in the order of their names, and stops at the first that fails.
//
// Every call runs in a fresh engine: globals are lost. There is no clock, no file and no network; the instant and a seed
// come from `context`. Every u64 is a plain number here (all are below 2^53), and an absent option is null or undefined.
// An exception ends the call without a decision; its text is lost, so log before you throw.

import { findSymbol, settings as settingsText } from 'collective:policy/context@{{contract}}';
import { versions } from 'collective:policy/instances@{{contract}}';

const DEFAULTS = { soak_ms: 60_000, checkpoint: true };
const SCHEMA = {
  $schema: 'https://json-schema.org/draft/2020-12/schema',
  title: '{{name}}',
  type: 'object',
  additionalProperties: false,
  properties: {
    soak_ms: {
      description: 'An instance must stay healthy for this long before the next one rolls.',
      type: 'integer', minimum: 0, maximum: 86400000, default: 60000,
    },
    checkpoint: {
      description: 'Take a checkpoint first, to come back to.',
      type: 'boolean', default: true,
    },
  },
};

export const plugin = {
  describe() {
    return {
      name: '{{name}}',
      version: '0.1.0',
      summary: 'What this policy does, in one sentence.',
      license: 'Apache-2.0',
      settingsSchema: JSON.stringify(SCHEMA),
      defaultSettings: '{}',
    };
  },

  validateSettings(text) {
    const issues = [];
    let given = {};
    try {
      given = JSON.parse(text);
    } catch (error) {
      throw [{ path: '', message: String(error) }];
    }
    for (const key of Object.keys(given)) {
      if (!(key in DEFAULTS)) issues.push({ path: `/${key}`, message: 'there is no such setting' });
    }
    const settings = { ...DEFAULTS, ...given };
    if (!Number.isInteger(settings.soak_ms) || settings.soak_ms < 0 || settings.soak_ms > 86400000) {
      issues.push({ path: '/soak_ms', message: 'give 0 to 86400000 milliseconds' });
    }
    if (typeof settings.checkpoint !== 'boolean') issues.push({ path: '/checkpoint', message: 'give true or false' });
    if (issues.length > 0) throw issues;
  },
};

const reason = (code, text) => ({ code, text, weight: 0 });

const LOOK_AGAIN_MS = 10_000;
const [UNDER_WAY, SUCCEEDED] = [0, 1];

export const update = {
  nextStep(rollout, _state) {
    // Where the rollout stands follows from its outcomes: there is nothing to remember.
    return { next: step(rollout), nextCall: LOOK_AGAIN_MS, state: new Uint8Array() };
  },
};

function step(rollout) {
  for (const { instance, status } of rollout.outcomes) {
    if (status === UNDER_WAY) {
      const reasons = [reason('one-at-a-time', `${instance} is under way`)];
      return { tag: 'hold', val: { retryAfter: LOOK_AGAIN_MS, reasons } };
    }
    // Also what a later contract may add: a policy treats a code it does not know as not eligible.
    if (status !== SUCCEEDED) return { tag: 'halt', val: [reason('a-roll-failed', `${instance} did not come through`)] };
  }
  // A version that no instance runs is no symbol: 0, which no instance has.
  const target = findSymbol(rollout.target);
  const instance = Array.from(versions()).findIndex((version) => target === 0 || version !== target);
  if (instance < 0) return { tag: 'complete', val: [reason('all-at-target', `all run ${rollout.target}`)] };
  const { soak_ms: soak, checkpoint } = { ...DEFAULTS, ...JSON.parse(settingsText()) };
  const reasons = [reason('next-in-order', 'the next by name')];
  return { tag: 'proceed', val: [{ instance, soak, checkpoint, reasons }] };
}
