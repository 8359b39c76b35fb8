/**
 * Where each piece of an image stands in the drawn map. Pure: the canvas only paints what this says.
 *
 * Every piece is in exactly one cell, in order. When pieces outnumber the cells that fit, a cell stands for several.
 */

/** Side of a cell with its gap, in CSS pixels. */
const PITCH_MAX = 14
const PITCH_MIN = 4

export interface PieceLayout {
  columns: number
  rows: number
  /** Distance between cells, in CSS pixels. */
  pitch: number
  /** Part of `pitch` that stays empty. */
  gap: number
  piecesPerCell: number
  cells: number
  /** Height of the whole, in CSS pixels. */
  height: number
}

export function layOutPieces(pieces: number, width: number, heightMax: number): PieceLayout {
  for (let pitch = PITCH_MAX; pitch > PITCH_MIN; pitch--) {
    const layout = atPitch(pieces, width, pitch, 1)
    if (layout.height <= heightMax) return layout
  }
  const columns = Math.max(1, Math.floor(width / PITCH_MIN))
  const rowsMax = Math.max(1, Math.floor(heightMax / PITCH_MIN))
  const piecesPerCell = Math.max(1, Math.ceil(pieces / (columns * rowsMax)))
  return atPitch(pieces, width, PITCH_MIN, piecesPerCell)
}

function atPitch(pieces: number, width: number, pitch: number, piecesPerCell: number): PieceLayout {
  const cells = Math.ceil(pieces / piecesPerCell)
  const columns = Math.max(1, Math.floor(width / pitch))
  const rows = Math.ceil(cells / columns)
  return { columns, rows, pitch, gap: pitch >= 8 ? 2 : 1, piecesPerCell, cells, height: rows * pitch }
}

/** The cell at a point, if there is one. */
export function cellAt(layout: PieceLayout, x: number, y: number): number | null {
  const column = Math.floor(x / layout.pitch)
  const row = Math.floor(y / layout.pitch)
  if (column < 0 || row < 0 || column >= layout.columns) return null
  const cell = row * layout.columns + column
  return cell < layout.cells ? cell : null
}

export type PieceKind = 'here' | 'fetching' | 'absent' | 'zero'

const KINDS: Record<string, PieceKind> = { h: 'here', f: 'fetching', z: 'zero', '.': 'absent' }

/** What a character of a piece map means; an unknown one is not taken for bytes that are here. */
export function kindOf(character: string): PieceKind {
  return KINDS[character] ?? 'absent'
}

export interface CellLook {
  kind: PieceKind
  /** Of the pieces in the cell that have bytes: how much of them is here, 0 to 1. */
  share: number
}

/** How to paint a cell: fetching shows over all else, then the share that is here; all zero only if all are. */
export function lookOf(map: string, layout: PieceLayout, cell: number): CellLook {
  const from = cell * layout.piecesPerCell
  const counts = countKinds(map.slice(from, from + layout.piecesPerCell))
  const withBytes = counts.here + counts.fetching + counts.absent
  const share = withBytes === 0 ? 0 : counts.here / withBytes
  if (counts.fetching > 0) return { kind: 'fetching', share }
  if (counts.here > 0) return { kind: 'here', share }
  return { kind: counts.absent > 0 ? 'absent' : 'zero', share }
}

export function countKinds(map: string): Record<PieceKind, number> {
  const counts = { here: 0, fetching: 0, absent: 0, zero: 0 }
  for (const character of map) counts[kindOf(character)] += 1
  return counts
}
