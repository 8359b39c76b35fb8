import type { ReactNode } from 'react'
import type { Tone } from './Notice'

export function Badge({ tone, title, children }: { tone: Tone; title?: string | undefined; children: ReactNode }) {
  return (
    <span className={`badge ${tone}`} title={title}>
      <span className={`dot ${tone}`} aria-hidden="true" />
      {children}
    </span>
  )
}
