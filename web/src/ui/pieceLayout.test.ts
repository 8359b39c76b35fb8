import { describe, expect, it } from 'vitest'
import { cellAt, countKinds, layOutPieces, lookOf } from './pieceLayout'

describe('layOutPieces', () => {
  const widths = [1, 37, 320, 761.5, 1400]
  const pieceCounts = [0, 1, 2, 255, 256, 257, 8192, 131_072, 1_000_003]
  const cases = widths.flatMap((width) => pieceCounts.map((pieces) => ({ width, pieces })))

  it.each(cases)('puts each of $pieces pieces into one cell that fits $width px', ({ width, pieces }) => {
    const layout = layOutPieces(pieces, width, 220)
    expect(layout.cells * layout.piecesPerCell).toBeGreaterThanOrEqual(pieces)
    expect(Math.max(0, layout.cells - 1) * layout.piecesPerCell).toBeLessThanOrEqual(Math.max(0, pieces - 1))
    expect(layout.rows * layout.columns).toBeGreaterThanOrEqual(layout.cells)
    expect(layout.height).toBeLessThanOrEqual(220)
    if (width >= layout.pitch) expect(layout.columns * layout.pitch).toBeLessThanOrEqual(width)
    expect(layout.gap).toBeLessThan(layout.pitch)
  })

  it('gives a piece a cell of its own while there is room', () => {
    expect(layOutPieces(256, 700, 220)).toMatchObject({ piecesPerCell: 1, pitch: 14, columns: 50, rows: 6 })
    expect(layOutPieces(8192, 700, 220).piecesPerCell).toBe(1)
    expect(layOutPieces(131_072, 700, 220).piecesPerCell).toBeGreaterThan(1)
  })
})

describe('cellAt', () => {
  const layout = layOutPieces(60, 700, 220)
  it('finds the cell under a point and none outside', () => {
    expect(cellAt(layout, 0, 0)).toBe(0)
    expect(cellAt(layout, 699, 13)).toBe(49)
    expect(cellAt(layout, 0, 14)).toBe(50)
    expect(cellAt(layout, 15 * 14, 14)).toBeNull()
    expect(cellAt(layout, -1, 0)).toBeNull()
    expect(cellAt(layout, 701, 0)).toBeNull()
  })
})

describe('lookOf', () => {
  const cellsOfFour = { columns: 2, rows: 1, pitch: 4, gap: 1, piecesPerCell: 4, cells: 2, height: 4 }
  it.each([
    ['hhhh', 'here', 1],
    ['hh..', 'here', 0.5],
    ['hzzz', 'here', 1],
    ['h.f.', 'fetching', 0.25],
    ['..zz', 'absent', 0],
    ['zzzz', 'zero', 0],
    ['????', 'absent', 0],
  ])('shows %s as %s', (map, kind, share) => expect(lookOf(map, cellsOfFour, 0)).toEqual({ kind, share }))
  it('counts a last cell that is not full by what it has', () => {
    expect(lookOf('....h', cellsOfFour, 1)).toEqual({ kind: 'here', share: 1 })
  })
})

it('counts every character once', () => {
  expect(countKinds('zzhf..h')).toEqual({ zero: 2, here: 2, fetching: 1, absent: 2 })
})
