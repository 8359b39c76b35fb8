import type { TopologyLink, TopologyView } from '../api/types'

/** Where things are drawn, in pixels: members are rows, networks are columns, a port is a line from one to the other. */
export interface Drawing {
  width: number
  height: number
  rows: { name: string; y: number }[]
  columns: { name: string; x: number; top: number; bottom: number }[]
  lines: { link: TopologyLink; x: number; y: number }[]
}

export const ROW_HEIGHT = 74
export const BOX = { x: 12, width: 208, height: 50 }
const HEAD = 64
const FIRST_COLUMN = BOX.x + BOX.width + 130
const COLUMN_WIDTH = 150
/** Between two ports of one member. */
const PORT_STEP = 16

/** The same picture gives the same drawing: nothing jumps while it lives. */
export function drawingOf(view: TopologyView): Drawing {
  const rows = view.members.map(({ name }, at) => ({ name, y: HEAD + at * ROW_HEIGHT }))
  const middle = (name: string) => {
    const row = rows.find((each) => each.name === name)
    return row === undefined ? null : row.y + BOX.height / 2
  }
  const lines = view.members.flatMap(({ name }) => {
    const links = view.links.filter((link) => link.member === name)
    return links.flatMap((link, at) => {
      const x = columnOf(view, link.network)
      const y = middle(name)
      return x === null || y === null ? [] : [{ link, x, y: y + (at - (links.length - 1) / 2) * PORT_STEP }]
    })
  })
  const columns = view.networks.map(({ name }, at) => {
    const ys = lines.filter(({ link }) => link.network === name).map(({ y }) => y)
    const x = FIRST_COLUMN + at * COLUMN_WIDTH
    return { name, x, top: Math.min(HEAD, ...ys), bottom: Math.max(HEAD + BOX.height, ...ys) }
  })
  return {
    width: FIRST_COLUMN + Math.max(view.networks.length, 1) * COLUMN_WIDTH - 40,
    height: HEAD + Math.max(view.members.length, 1) * ROW_HEIGHT,
    rows,
    columns,
    lines,
  }
}

function columnOf(view: TopologyView, network: string): number | null {
  const at = view.networks.findIndex(({ name }) => name === network)
  return at < 0 ? null : FIRST_COLUMN + at * COLUMN_WIDTH
}

export const portKey = ({ member, port }: TopologyLink) => `${member}/${port}`

/** Bytes a second since an earlier picture; none of a port whose counters began anew, or is new. */
export function ratesOf(before: TopologyView | null, now: TopologyView): Map<string, number> {
  const seconds = before === null ? 0 : (now.at_ms - before.at_ms) / 1000
  const rates = new Map<string, number>()
  if (before === null || seconds <= 0) return rates
  const known = new Map(before.links.map((link) => [portKey(link), link]))
  for (const link of now.links) {
    const held = known.get(portKey(link))
    if (held === undefined) continue
    const bytes = total(link) - total(held)
    if (bytes >= 0) rates.set(portKey(link), bytes / seconds)
  }
  return rates
}

function total({ from_guest, to_guest }: TopologyLink): number {
  return from_guest.bytes + to_guest.bytes
}

export type LinkState = 'good' | 'wait' | 'bad'

/** Held ports wait, ports without rules in force are closed. */
export function stateOf({ held, ready }: TopologyLink): LinkState {
  if (held) return 'wait'
  return ready ? 'good' : 'bad'
}
