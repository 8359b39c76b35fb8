import type { InstanceState } from '../api/types'
import { Badge } from '../ui/Badge'
import type { Tone } from '../ui/Notice'

const LOOKS: Record<InstanceState, { tone: Tone; word: string }> = {
  pending: { tone: 'wait', word: 'Pending' },
  preparing: { tone: 'busy', word: 'Preparing' },
  booting: { tone: 'busy', word: 'Booting' },
  ready: { tone: 'good', word: 'Ready' },
  stopped: { tone: 'muted', word: 'Stopped' },
  failed: { tone: 'bad', word: 'Failed' },
  removing: { tone: 'muted', word: 'Removing' },
}

export function StateBadge({ state, reason }: { state: InstanceState; reason?: string | null | undefined }) {
  const { tone, word } = LOOKS[state]
  return (
    <Badge tone={tone} title={reason ?? undefined}>
      {word}
    </Badge>
  )
}

export function stateTone(state: InstanceState): Tone {
  return LOOKS[state].tone
}
