import type { HostView, InstanceView, PolicyView } from '../api/types'

/** What can be done now. A text says why not, and is shown at the disabled action. */
export type Denial = string | null

export function cannotOpenConsole(instance: InstanceView, host: HostView | undefined): Denial {
  if (instance.host === null) return 'It has no host yet, so there is no console.'
  if (host && !host.online) return `Its host ${host.name} is offline.`
  switch (instance.state) {
    case 'booting':
    case 'ready':
      return null
    case 'pending':
    case 'preparing':
      return 'It has not started yet.'
    case 'stopped':
    case 'failed':
      return 'It does not run.'
    case 'removing':
      return 'It is being removed.'
  }
}

export function cannotPromote(policy: PolicyView): Denial {
  return policy.candidate ? null : 'There is no candidate: put one beside it with collective policy shadow.'
}

export function cannotRollBack(policy: PolicyView): Denial {
  return policy.earlier.length > 0 ? null : 'Nothing answered before: there is nothing to go back to.'
}

export function cannotCordon(host: HostView): Denial {
  if (host.role !== 'host') return 'It takes no instances in any case.'
  return null
}

export function cannotRenew(instance: InstanceView): Denial {
  if (instance.state === 'removing') return 'It is being removed already.'
  if (instance.host === null) return 'It has no host yet, so there is nothing to throw away.'
  return null
}
