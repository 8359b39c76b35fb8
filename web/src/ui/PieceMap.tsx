import { type MouseEvent, useEffect, useMemo, useRef, useState, useSyncExternalStore } from 'react'
import { formatCount } from './format'
import { cellAt, countKinds, kindOf, layOutPieces, lookOf, type PieceKind, type PieceLayout } from './pieceLayout'

const HEIGHT_MAX = 240
const WORDS: Record<PieceKind, string> = { here: 'Here', fetching: 'Being fetched', absent: 'Absent', zero: 'Zero' }
const KINDS: readonly PieceKind[] = ['here', 'fetching', 'absent', 'zero']

/** An image's pieces, drawn: `z` zero, `h` here, `f` being fetched, `.` absent. What came since the last one shines. */
export function PieceMap({ map }: { map: string }) {
  const canvas = useRef<HTMLCanvasElement>(null)
  const width = useWidth(canvas)
  const dark = useDark()
  const layout = useMemo(() => layOutPieces(map.length, width, HEIGHT_MAX), [map.length, width])
  const counts = useMemo(() => countKinds(map), [map])
  const before = useRef(map)
  const [pointed, setPointed] = useState<string | null>(null)

  useEffect(() => {
    if (canvas.current && width > 0) paint(canvas.current, width, layout, map, before.current)
    before.current = map
  }, [map, layout, width, dark])

  const point = (event: MouseEvent<HTMLCanvasElement>) => {
    const box = event.currentTarget.getBoundingClientRect()
    setPointed(describe(map, layout, cellAt(layout, event.clientX - box.left, event.clientY - box.top)))
  }
  const spoken = KINDS.map((kind) => `${WORDS[kind].toLowerCase()} ${counts[kind]}`).join(', ')
  return (
    <div className="piece-map">
      <canvas
        ref={canvas}
        role="img"
        aria-label={`Piece map of ${map.length} pieces: ${spoken}`}
        style={{ height: layout.height }}
        onMouseMove={point}
        onMouseLeave={() => setPointed(null)}
      />
      <dl className="legend">
        {KINDS.map((kind) => (
          <div key={kind}>
            <dt>
              <span className={`swatch piece-${kind}`} aria-hidden="true" />
              {WORDS[kind]}
            </dt>
            <dd data-pieces={kind}>{formatCount(counts[kind])}</dd>
          </div>
        ))}
        <p className="hint">{pointed ?? (layout.piecesPerCell > 1 ? `A square is ${layout.piecesPerCell} pieces.` : '')}</p>
      </dl>
    </div>
  )
}

function describe(map: string, layout: PieceLayout, cell: number | null): string | null {
  if (cell === null) return null
  const first = cell * layout.piecesPerCell
  const last = Math.min(map.length, first + layout.piecesPerCell) - 1
  if (first === last) return `Piece ${first}: ${WORDS[kindOf(map[first] ?? '.')].toLowerCase()}`
  return `Pieces ${first} to ${last}: ${countKinds(map.slice(first, last + 1)).here} here`
}

function paint(canvas: HTMLCanvasElement, width: number, layout: PieceLayout, map: string, before: string) {
  const scale = window.devicePixelRatio || 1
  canvas.width = Math.round(width * scale)
  canvas.height = Math.round(layout.height * scale)
  const context = canvas.getContext('2d')
  if (!context) return
  context.scale(scale, scale)
  const style = getComputedStyle(canvas)
  const colour = (name: string) => style.getPropertyValue(`--piece-${name}`).trim()
  const colours = { here: colour('here'), fetching: colour('fetching'), absent: colour('absent'), zero: colour('zero') }
  const fresh = colour('fresh')
  const side = layout.pitch - layout.gap
  for (let cell = 0; cell < layout.cells; cell++) {
    const look = lookOf(map, layout, cell)
    const x = (cell % layout.columns) * layout.pitch
    const y = Math.floor(cell / layout.columns) * layout.pitch
    if (look.kind === 'here' && look.share < 1) square(context, x, y, side, colours.absent, 1)
    const isFresh = look.kind === 'here' && before.length === map.length && cameSince(before, map, layout, cell)
    const alpha = look.kind === 'here' ? 0.25 + 0.75 * look.share : 1
    square(context, x, y, side, isFresh ? fresh : colours[look.kind], alpha)
  }
}

function square(context: CanvasRenderingContext2D, x: number, y: number, side: number, colour: string, alpha: number) {
  context.globalAlpha = alpha
  context.fillStyle = colour
  context.fillRect(x, y, side, side)
  context.globalAlpha = 1
}

function cameSince(before: string, map: string, layout: PieceLayout, cell: number): boolean {
  const from = cell * layout.piecesPerCell
  const to = from + layout.piecesPerCell
  for (let piece = from; piece < to; piece++) if (map[piece] === 'h' && before[piece] !== 'h') return true
  return false
}

function useWidth(element: { current: HTMLElement | null }): number {
  const [width, setWidth] = useState(0)
  useEffect(() => {
    if (!element.current) return
    const observer = new ResizeObserver(([entry]) => setWidth(entry?.contentRect.width ?? 0))
    observer.observe(element.current)
    return () => observer.disconnect()
  }, [element])
  return width
}

const darkQuery = window.matchMedia('(prefers-color-scheme: dark)')

/** A canvas does not follow the colour scheme by itself. */
function useDark(): boolean {
  return useSyncExternalStore(
    (listener) => {
      darkQuery.addEventListener('change', listener)
      return () => darkQuery.removeEventListener('change', listener)
    },
    () => darkQuery.matches,
  )
}
