/** Numbers for people. Binary units; a no-break space before each unit. */

const NBSP = '\u00a0'
const BYTE_UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB']

/** `0 B`, `1.5 MiB`, `38.4 GiB`: three significant digits, never `1024`. */
export function formatBytes(bytes: number): string {
  let value = bytes
  let unit = 0
  // 1023.5 and above would be written 1024.
  while (value >= 1023.5 && unit < BYTE_UNITS.length - 1) {
    value /= 1024
    unit += 1
  }
  return `${unit === 0 ? String(Math.round(value)) : threeDigits(value)}${NBSP}${BYTE_UNITS[unit]}`
}

/** `1.5 MiB/s`. */
export function formatRate(bytesPerSecond: number): string {
  return `${formatBytes(bytesPerSecond)}/s`
}

/** `999.5` rounds up to four digits anyway, so thresholds stand below the next power of ten. */
function threeDigits(value: number): string {
  const places = value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2
  return value.toFixed(places).replace(/\.0+$|(\.\d*?)0+$/, '$1')
}

const SIZE = /^(\d+)\s*(TiB|GiB|MiB|KiB)?$/

/** Bytes of a size as the API writes it (`512MiB`, `10GiB`, `4096`); none if it is no size. */
export function parseByteSize(text: string): number | null {
  const match = SIZE.exec(text)
  if (!match) return null
  const unit = match[2] === undefined ? 0 : BYTE_UNITS.indexOf(match[2])
  return Number(match[1]) * 1024 ** unit
}

/** `512 MiB` of `512MiB`; the text itself if it is no size. */
export function formatByteSize(text: string): string {
  const bytes = parseByteSize(text)
  return bytes === null ? text : formatBytes(bytes)
}

/** `412 µs`, `340 ms`, `14.2 s`, `2 min 05 s`, `3 h 12 min`, `4 d 6 h`. Less than nothing is nothing. */
export function formatDuration(milliseconds: number): string {
  const ms = Math.max(0, milliseconds)
  if (ms > 0 && ms < 0.9995) return `${Math.round(ms * 1000)}${NBSP}µs`
  if (ms < 999.5) return `${Math.round(ms)}${NBSP}ms`
  if (ms < 59_950) return `${(ms / 1000).toFixed(1)}${NBSP}s`
  const seconds = Math.round(ms / 1000)
  if (seconds < 3600) return pair(Math.floor(seconds / 60), 'min', seconds % 60, 's')
  const minutes = Math.round(ms / 60_000)
  if (minutes < 1440) return pair(Math.floor(minutes / 60), 'h', minutes % 60, 'min')
  const hours = Math.round(ms / 3_600_000)
  return pair(Math.floor(hours / 24), 'd', hours % 24, 'h')
}

function pair(large: number, largeUnit: string, small: number, smallUnit: string): string {
  return `${large}${NBSP}${largeUnit} ${String(small).padStart(2, '0')}${NBSP}${smallUnit}`
}

/** `7.5 %`; only nothing is `0 %` and only everything is `100 %`. */
export function formatShare(part: number, whole: number): string {
  if (whole <= 0 || part <= 0) return `0${NBSP}%`
  if (part >= whole) return `100${NBSP}%`
  const percent = Math.min(99.9, (part / whole) * 100)
  return percent < 0.1 ? `<${NBSP}0.1${NBSP}%` : `${percent.toFixed(1).replace(/\.0$/, '')}${NBSP}%`
}

const counts = new Intl.NumberFormat('en')

/** `12,345`. */
export function formatCount(count: number): string {
  return counts.format(count)
}

/** `2026-11-22 05:02:31`, in the reader's time zone. */
export function formatTime(atMs: number): string {
  const at = new Date(atMs)
  const two = (value: number) => String(value).padStart(2, '0')
  const day = `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`
  return `${day} ${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`
}

/** First 12 digits of a digest, as the CLI shows it. */
export function shortDigest(digest: string): string {
  return digest.replace(/^sha256:/, '').slice(0, 12)
}
