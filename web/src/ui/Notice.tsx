import type { ReactNode } from 'react'

export type Tone = 'good' | 'busy' | 'wait' | 'bad' | 'muted'

export function Notice({ tone, children }: { tone: Tone; children: ReactNode }) {
  return (
    <div className={`notice ${tone}`} role={tone === 'bad' ? 'alert' : undefined}>
      {children}
    </div>
  )
}
