import { useEffect, useMemo, useRef } from 'react'
import { consoleText } from './consoleText'

/** Nearer to its end than this, a log goes on following it. In CSS pixels. */
const FOLLOW_PX = 24

export function LogTail({ label, raw }: { label: string; raw: string }) {
  const text = useMemo(() => consoleText(raw), [raw])
  const box = useRef<HTMLPreElement>(null)
  const follows = useRef(true)
  useEffect(() => {
    if (box.current && follows.current) box.current.scrollTop = box.current.scrollHeight
  }, [text])
  const scrolled = () => {
    const at = box.current
    if (at) follows.current = at.scrollHeight - at.scrollTop - at.clientHeight < FOLLOW_PX
  }
  return (
    <pre className="log" ref={box} role="log" aria-label={label} aria-live="off" tabIndex={0} onScroll={scrolled}>
      {text}
    </pre>
  )
}
