import { expect, it } from 'vitest'
import type { Stall, StallCause } from '../api/types'
import { waiting } from './waiting'

const stall = (began: number, waited: number, why: StallCause): Stall => ({
  began_unix_ms: began,
  at_ms: began,
  reader: 'r',
  piece: 0,
  waited_ms: waited,
  why,
})

it('does not count reads that waited at the same time twice', () => {
  const found = waiting([stall(500, 10, 'late'), stall(50, 100, 'late'), stall(0, 100, 'no_profile'), stall(60, 10, 'late')])
  expect([found.count, found.waitedMs]).toEqual([4, 160])
  expect(found.byCause).toEqual([
    { cause: 'late', ms: 120 },
    { cause: 'no_profile', ms: 100 },
  ])
})

it('is nothing where nothing waited', () => {
  expect(waiting([])).toEqual({ count: 0, waitedMs: 0, byCause: [] })
})
