const OPACITY = [1, 1, 0.45, 1, 0.45, 0.2, 1, 1, 1]

export function Logo({ size }: { size: number }) {
  return (
    <svg className="logo" width={size} height={size} viewBox="0 0 32 32" aria-hidden="true">
      <rect width="32" height="32" rx="8" fill="var(--brand)" />
      {OPACITY.map((opacity, piece) => (
        <rect
          key={piece}
          x={7 + (piece % 3) * 6.5}
          y={7 + Math.floor(piece / 3) * 6.5}
          width="5"
          height="5"
          rx="1"
          fill="#fff"
          opacity={opacity}
        />
      ))}
    </svg>
  )
}
