import { useEffect, useState } from 'react'
import { formatDuration, formatTime } from './format'

export function Time({ atMs }: { atMs: number }) {
  return <time dateTime={new Date(atMs).toISOString()}>{formatTime(atMs)}</time>
}

/** Time since a moment, running. */
export function Elapsed({ sinceMs, everyMs = 1_000 }: { sinceMs: number; everyMs?: number }) {
  const [now, setNow] = useState(Date.now)
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), everyMs)
    return () => clearInterval(timer)
  }, [everyMs])
  return <>{formatDuration(now - sinceMs)}</>
}
