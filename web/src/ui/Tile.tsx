import type { ReactNode } from 'react'

/** One number that matters, large. */
export function Tile({ label, value, children }: { label: string; value: ReactNode; children?: ReactNode }) {
  return (
    <div className="tile" role="group" aria-label={label}>
      <p className="tile-label">{label}</p>
      <p className="tile-value">{value}</p>
      {children && <p className="hint">{children}</p>}
    </div>
  )
}
