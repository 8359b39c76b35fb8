import type { HostView, InstanceView } from '../api/types'

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

export function cannotRenew(instance: InstanceView): Denial {
  if (instance.state === 'removing') return 'It is being removed already.'
  if (instance.host === null) return 'It has no host yet, so there is nothing to throw away.'
  return null
}
