import type { DecisionView, PolicyRelease, PolicyView, ShadowReport, TrustRootView } from '../src/api/types.ts'

const HOUR_MS = 3_600_000
const KEY = `sha256:${'6b'.repeat(32)}`

/** Who decides in one world: `balanced` places, with a candidate beside it, and `waves` rolls. */
export class Policies {
  private balanced: PolicyView
  private readonly waves: PolicyView

  constructor(private readonly bornMs: number) {
    const common = { on_failure: 'refuse' as const, health: { calls: 12, failures: 0 }, used_by: ['bundle/office'] }
    this.balanced = {
      ...common,
      ...this.release('balanced', '0.1.0', '4f'),
      name: 'balanced',
      kind: 'placement',
      earlier: [],
      candidate: {
        ...this.release('balanced', '0.2.0', '9c'),
        origin: { by: 'signed', root: 'acme', key: KEY },
        settings: { spread: 2 },
      },
    }
    this.waves = {
      ...common,
      ...this.release('waves', '0.1.0', '7e'),
      name: 'waves',
      kind: 'update',
      on_failure: { fallback: 'cautious' },
      earlier: [],
      health: { calls: 40, failures: 10, open_until_ms: bornMs + HOUR_MS, problem: 'It ran longer than 50 ms ten times in a row.' },
    }
  }

  all(): PolicyView[] {
    return [this.balanced, this.waves]
  }

  trust(): TrustRootView[] {
    return [
      { name: 'acme', key: 'azhvNWM0', key_id: KEY, kinds: ['placement', 'update'], added_ms: this.bornMs - HOUR_MS, policies: [] },
    ]
  }

  shadow(name: string, decisions: DecisionView[]): ShadowReport | undefined {
    const { candidate } = this.balanced
    if (name !== 'balanced' || !candidate) return undefined
    const differences = decisions.slice(0, 1).map((decision) => ({
      ...decision,
      shadow: { policy: name, component: 'balanced 0.2.0', digest: candidate.digest, differs: true, outcome: 'place on h3', took_us: 380 },
    }))
    return { policy: name, candidate, asked: 12, differed: differences.length, failed: 0, differences }
  }

  /** False if there is no such policy or action, or nothing to do. */
  change(name: string, action: string): boolean {
    const { candidate, earlier, ...rest } = this.balanced
    if (name !== 'balanced') return false
    if (action === 'promote' && candidate) {
      const { component, version, digest, summary, size_bytes, origin, since_ms } = rest
      const before = { component, version, digest, summary, size_bytes, origin, since_ms }
      this.balanced = { ...rest, ...candidate, earlier: [before, ...earlier] }
      return true
    }
    const [last, ...older] = earlier
    if (action === 'rollback' && last) {
      const { settings: _, ...own } = rest
      this.balanced = { ...own, ...last, earlier: older, ...(candidate ? { candidate } : {}) }
      return true
    }
    if (action === 'candidate' && candidate) {
      this.balanced = { ...rest, earlier }
      return true
    }
    return false
  }

  find(name: string): PolicyView | undefined {
    return this.all().find((policy) => policy.name === name)
  }

  private release(component: string, version: string, byte: string): PolicyRelease {
    return {
      component,
      version,
      digest: `sha256:${byte.repeat(32)}`,
      summary: component === 'balanced' ? 'Spreads instances over hosts' : 'Rolls by waves, behind a health gate',
      size_bytes: 167_272,
      origin: { by: 'built_in' },
      since_ms: this.bornMs - 2 * HOUR_MS,
    }
  }
}
