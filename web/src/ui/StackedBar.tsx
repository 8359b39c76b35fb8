import { formatBytes, formatShare } from './format'

export interface Segment {
  /** Also its colour: `--source-<key>`. */
  key: string
  label: string
  bytes: number
}

/** Parts of a whole in one bar, with their numbers below. What is left of the whole stays empty. */
export function StackedBar({ label, segments, total }: { label: string; segments: readonly Segment[]; total: number }) {
  const spoken = segments.map((segment) => `${segment.label} ${formatBytes(segment.bytes)}`).join(', ')
  return (
    <div className="stacked">
      <div className="stacked-track" role="img" aria-label={`${label}: ${spoken}, of ${formatBytes(total)}`}>
        {segments.map((segment) => (
          <span
            key={segment.key}
            className={`source-${segment.key}`}
            style={{ width: total <= 0 ? 0 : `${(segment.bytes / total) * 100}%` }}
          />
        ))}
      </div>
      <dl className="legend">
        {segments.map((segment) => (
          <div key={segment.key}>
            <dt>
              <span className={`swatch source-${segment.key}`} aria-hidden="true" />
              {segment.label}
            </dt>
            <dd data-bytes={segment.bytes}>
              {formatBytes(segment.bytes)} <span className="hint">{formatShare(segment.bytes, total)}</span>
            </dd>
          </div>
        ))}
      </dl>
    </div>
  )
}
