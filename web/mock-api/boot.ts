import type { BootView, InstanceState, Stall, StallCause, StreamReport } from '../src/api/types'

const PIECE_BYTES = 256 * 1024
const PIECES = 512
const PREPARING_MS = 300
const READY_AFTER_MS = 5_000
/** Share of the pieces with bytes that a boot reads. */
const READ_SHARE = 0.4

const LOG: readonly [number, string][] = [
  [0.02, 'SeaBIOS (version 1.16.2-debian-1.16.2-1)'],
  [0.05, 'Booting from Hard Disk...'],
  [0.12, '[    0.000000] Linux version 6.1.0-28-amd64 (debian-kernel@lists.debian.org)'],
  [0.16, '[    0.412210] virtio_blk virtio1: [vda] 262144 512-byte logical blocks (134 MB/128 MiB)'],
  [0.25, '[    1.204118] EXT4-fs (vda1): mounted filesystem with ordered data mode'],
  [0.34, '\u001b[1mstarting version 252.31\u001b[0m'],
  [0.45, '[\u001b[32m  OK  \u001b[0m] Mounted home volume vol-home on /home'],
  [0.6, '[\u001b[32m  OK  \u001b[0m] Configured eth0 10.20.0.10/24 by DHCP'],
  [0.8, '[\u001b[32m  OK  \u001b[0m] Started web server on port 80'],
  [0.97, 'workspace: ready'],
]

/** An order of reads that jumps about as a booting guest does; the same for everybody. */
function readOrder(): number[] {
  const order: number[] = []
  let seed = 7
  const next = () => (seed = (seed * 1_103_515_245 + 12_345) % 2_147_483_648) / 2_147_483_648
  const seen = new Set<number>()
  while (order.length < PIECES) {
    const start = Math.floor(next() * PIECES)
    const run = 1 + Math.floor(next() * 9)
    for (let piece = start; piece < Math.min(PIECES, start + run); piece++) {
      if (!seen.has(piece)) order.push(piece)
      seen.add(piece)
    }
  }
  return order
}

const ORDER = readOrder()
const ZERO = new Set(ORDER.filter((piece) => piece % 64 > 43))

function pieceMap(progress: number): string {
  const map: string[] = Array.from({ length: PIECES }, (_, piece) => (ZERO.has(piece) ? 'z' : '.'))
  const wanted = ORDER.filter((piece) => !ZERO.has(piece))
  const here = Math.floor(wanted.length * READ_SHARE * progress)
  for (const [nth, piece] of wanted.entries()) {
    if (nth < here) map[piece] = 'h'
    else if (progress > 0 && progress < 1 && nth < here + 3) map[piece] = 'f'
  }
  return map.join('')
}

export function stateAfter(elapsedMs: number): InstanceState {
  if (elapsedMs < PREPARING_MS) return 'preparing'
  return elapsedMs < READY_AFTER_MS ? 'booting' : 'ready'
}

export const readyMs = (startedMs: number) => startedMs + READY_AFTER_MS

/** A boot as it is so long after its start. */
export function bootAfter(startedMs: number, elapsedMs: number): BootView {
  const progress = Math.min(1, Math.max(0, elapsedMs / READY_AFTER_MS))
  const map = pieceMap(progress)
  const here = map.split('h').length - 1
  const state = stateAfter(elapsedMs)
  const fetched = here * PIECE_BYTES
  const cache = Math.min(here, 12) * PIECE_BYTES
  const origin = Math.round(((fetched - cache) / PIECE_BYTES) * 0.3) * PIECE_BYTES
  const peer = fetched - cache - origin
  const running = progress > 0 && progress < 1
  return {
    state,
    started_ms: state === 'preparing' ? null : startedMs,
    ready_ms: state === 'ready' ? readyMs(startedMs) : null,
    image: {
      export: 'c1'.repeat(32),
      size_bytes: PIECES * PIECE_BYTES,
      piece_bytes: PIECE_BYTES,
      pieces: PIECES,
      pieces_zero: ZERO.size,
      pieces_local: here,
      bytes: { origin, peer, web_seed: 0, zero: Math.floor(progress * 40) * PIECE_BYTES, cache },
      bytes_uploaded: Math.floor(peer / 3),
      bytes_poisoned: 0,
      stalls: {
        count: Math.floor(here * 0.6),
        total_ms: Math.floor(progress * 2_140),
        longest_ms: Math.floor(progress * 310),
        waiting: progress > 0 && progress < 1 ? 2 : 0,
      },
      rates: { down_bytes_per_s: running ? 31 * PIECE_BYTES : 0, up_bytes_per_s: running ? 9 * PIECE_BYTES : 0 },
      readers: [],
      peers: [
        { address: '10.77.0.2:6881', origin: true, same_site: false, rates: { down_bytes_per_s: running ? 9 * PIECE_BYTES : 0, up_bytes_per_s: 0 }, pieces: PIECES - ZERO.size, bytes_down: origin, bytes_up: 0 },
        { address: '10.77.0.12:6881', origin: false, same_site: true, rates: { down_bytes_per_s: running ? 22 * PIECE_BYTES : 0, up_bytes_per_s: 0 }, pieces: 118, bytes_down: peer, bytes_up: Math.floor(peer / 3) },
      ],
      piece_map: map,
    },
    log_tail: LOG.filter(([at]) => at <= progress)
      .map(([, line]) => `${line}\r\n`)
      .join(''),
  }
}

/** When a read began to wait after the start, how long, for which piece, why, and who sent it. */
const WAITS: readonly [number, number, number, StallCause, string][] = [
  [120, 90, 17, 'no_profile', 'origin'],
  [900, 310, 204, 'not_in_profile', 'origin'],
  [2_300, 40, 88, 'late', 'peer'],
  [3_100, 60, 91, 'late', 'peer'],
]

/** What a boot's reads have waited for so long after its start. */
export function reportAfter(reader: string, image: string, startedMs: number, elapsedMs: number): StreamReport {
  const stall = ([at, waited, piece, why, source]: (typeof WAITS)[number]): Stall => ({
    began_unix_ms: startedMs + at,
    at_ms: at,
    reader,
    piece,
    waited_ms: waited,
    source,
    from: source === 'origin' ? '10.77.0.2:6881' : '10.77.0.12:6881',
    ...(why === 'no_profile' ? {} : { profile: 'boot' }),
    why,
  })
  return {
    image,
    started_ms: startedMs,
    ...(stateAfter(elapsedMs) === 'ready' ? { ready_ms: readyMs(startedMs) } : {}),
    run: {
      began_unix_ms: startedMs,
      connected: true,
      whole: true,
      profile: 'boot',
      scores: [
        { profile: 'boot', score: 0.93 },
        { profile: 'login', score: 0.21 },
      ],
      touched: 188,
    },
    stalls: WAITS.filter(([at]) => at <= elapsedMs).map(stall),
  }
}
