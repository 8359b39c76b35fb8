// Takes the host with the largest share of free memory.
//
// Every call runs in a fresh engine: globals are lost. There is no clock, no file and no network; the instant and a seed
// come from `context`. Every u64 is a plain number here (all are below 2^53), and an absent option is null or undefined.
// An exception ends the call without a decision; its text is lost, so log before you throw.

import { feasible, rows } from 'collective:policy/cluster@{{contract}}';
import { settings as settingsText } from 'collective:policy/context@{{contract}}';

const GIB = 2 ** 30;
const RETRY_AFTER_MS = 10_000;
const DEFAULTS = { points: 100, candidates: 64 };
const SCHEMA = {
  $schema: 'https://json-schema.org/draft/2020-12/schema',
  title: '{{name}}',
  type: 'object',
  additionalProperties: false,
  properties: {
    points: {
      description: 'What a host is worth whose memory is all free.',
      type: 'number', minimum: 0, maximum: 1000, default: 100,
    },
    candidates: {
      description: 'Hosts that are looked at: more choice, more time.',
      type: 'integer', minimum: 1, maximum: 20000, default: 64,
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
    const { points, candidates } = { ...DEFAULTS, ...given };
    if (typeof points !== 'number' || !(points >= 0 && points <= 1000)) {
      issues.push({ path: '/points', message: 'give a number from 0 to 1000' });
    }
    if (!Number.isInteger(candidates) || candidates < 1 || candidates > 20_000) {
      issues.push({ path: '/candidates', message: 'give 1 to 20000 hosts' });
    }
    if (issues.length > 0) throw issues;
  },
};

export const placement = {
  place(request) {
    const settings = { ...DEFAULTS, ...JSON.parse(settingsText()) };
    // Hosts that meet every hard limit, found natively: at most so many, whichever the call's seed picks.
    const hosts = feasible(settings.candidates);
    if (hosts.length === 0) {
      const reasons = [{ code: 'no-host-fits', text: 'no host has room for it', weight: 0 }];
      return { tag: 'defer', val: { retryAfter: RETRY_AFTER_MS, reasons, rejections: [] } };
    }
    const choices = rows(hosts).map((row) => choice(settings, request, row));
    // Ties go to the host that is first by name, so that the same question has one answer.
    choices.sort((a, b) => b.score - a.score || a.host - b.host);
    return { tag: 'place', val: { choices: choices.slice(0, request.choicesMax), rejections: [] } };
  },
};

function choice(settings, request, row) {
  const [free, total] = [Number(row.memoryFreeBytes), Number(row.memoryTotalBytes)];
  const left = Math.max(free - Number(request.memoryBytes), 0);
  const score = settings.points * (total === 0 ? 0 : left / total);
  const text = `${Math.floor(left / GIB)} of ${Math.floor(total / GIB)} GiB of memory stay free`;
  return { host: row.host, score, reasons: [{ code: 'memory-left', text, weight: score }] };
}
