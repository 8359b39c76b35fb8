import { formatBytes } from './format'

/** How much of something is used, with what is free in words. */
export function Meter({ label, free, total }: { label: string; free: number; total: number }) {
  const used = total <= 0 ? 0 : Math.min(1, Math.max(0, 1 - free / total))
  const text = `${formatBytes(free)} free of ${formatBytes(total)}`
  return (
    <div className="meter">
      <div className="meter-track" role="meter" aria-label={`${label} used`} aria-valuenow={Math.round(used * 100)} aria-valuemin={0} aria-valuemax={100} aria-valuetext={text}>
        <span className={used > 0.9 ? 'full' : undefined} style={{ width: `${used * 100}%` }} />
      </div>
      <span className="hint">{text}</span>
    </div>
  )
}
