import type { Stall, StallCause } from '../api/types'

export const CAUSE_WORDS: Record<StallCause, string> = {
  no_profile: 'no profile fitted',
  not_in_profile: 'not in the profile',
  late: 'came too late',
}

export interface Waiting {
  count: number
  /** Time in which at least one read waited. */
  waitedMs: number
  byCause: { cause: StallCause; ms: number }[]
}

/** What stalls come to. Reads that waited at the same time are not counted twice. */
export function waiting(stalls: readonly Stall[]): Waiting {
  const causes = new Map<StallCause, number>()
  const spans = stalls.map(({ began_unix_ms: began, waited_ms: waited }) => [began, began + waited] as const)
  for (const { why, waited_ms: waited } of stalls) causes.set(why, (causes.get(why) ?? 0) + waited)
  spans.sort(([a], [b]) => a - b)
  let waitedMs = 0
  let until = 0
  for (const [begin, end] of spans) {
    waitedMs += Math.max(0, end - Math.max(begin, until))
    until = Math.max(until, end)
  }
  const byCause = [...causes].map(([cause, ms]) => ({ cause, ms })).sort((a, b) => b.ms - a.ms)
  return { count: stalls.length, waitedMs, byCause }
}
