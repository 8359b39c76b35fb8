// Takes a checkpoint at a fixed interval and keeps the newest.
//
// Every call runs in a fresh engine: globals are lost. There is no clock, no file and no network; the instant and a seed
// come from `context`. Every u64 is a plain number here (all are below 2^53), and an absent option is null or undefined.
// An exception ends the call without a decision; its text is lost, so log before you throw.

import { now, settings as settingsText } from 'collective:policy/context@{{contract}}';
import { pinned, taken } from 'collective:policy/checkpoints@{{contract}}';

const DEFAULTS = { interval_ms: 3_600_000, keep: 24 };
const SCHEMA = {
  $schema: 'https://json-schema.org/draft/2020-12/schema',
  title: '{{name}}',
  type: 'object',
  additionalProperties: false,
  properties: {
    interval_ms: {
      description: 'Time between two checkpoints.',
      type: 'integer', minimum: 60000, maximum: 86400000, default: 3600000,
    },
    keep: {
      description: 'Newest checkpoints that stay; pinned ones stay besides.',
      type: 'integer', minimum: 1, maximum: 1000, default: 24,
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
    if (!Number.isInteger(settings.interval_ms) || settings.interval_ms < 60000 || settings.interval_ms > 86400000) {
      issues.push({ path: '/interval_ms', message: 'give 60000 to 86400000 milliseconds' });
    }
    if (!Number.isInteger(settings.keep) || settings.keep < 1 || settings.keep > 1000) {
      issues.push({ path: '/keep', message: 'give 1 to 1000 checkpoints' });
    }
    if (issues.length > 0) throw issues;
  },
};

const reason = (code, text) => ({ code, text, weight: 0 });

const PAUSE_MAX_MS = 5000;

export const checkpoint = {
  schedule(_subject, _state) {
    const { interval_ms: interval, keep } = { ...DEFAULTS, ...JSON.parse(settingsText()) };
    // Oldest first: the last is the newest.
    const times = Array.from(taken(), Number);
    const age = times.length === 0 ? undefined : Math.max(Number(now()) - times[times.length - 1], 0);
    const due = age === undefined || age >= interval;
    const text = age === undefined ? 'there is none yet' : `the newest is ${Math.floor(age / 1000)} s old`;
    const take = due
      ? { withMemory: false, pauseMax: PAUSE_MAX_MS, reasons: [reason('interval-over', text)] }
      : undefined;
    // The new one counts: it is there before any is dropped.
    const stay = keep - (due ? 1 : 0);
    const discards = Array.from(pinned())
      .map((isPinned, index) => ({ isPinned, index }))
      .slice(0, Math.max(times.length - stay, 0))
      .filter(({ isPinned }) => isPinned === 0)
      .map(({ index }) => ({
        checkpoint: index,
        reasons: [reason('enough-newer-ones', `${stay} newer ones are there`)],
      }));
    return { take, discards, nextCall: due ? interval : interval - age, state: new Uint8Array() };
  },
};
