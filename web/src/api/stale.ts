import type { Collection } from './types'

/**
 * First words of the query keys that a change in a collection makes stale. A view that embeds another is stale with it:
 * a deployment shows its instances, an instance its placement.
 */
export function staleAfter(collection: Collection): readonly string[] {
  switch (collection) {
    case 'bundles':
    case 'deployments':
      return ['deployments', 'instances']
    case 'instances':
    case 'hosts':
      return ['instances', 'deployments', 'hosts', 'boot']
    case 'decisions':
      return ['decisions', 'policies', 'instances', 'deployments']
    case 'appliances':
      return ['appliances']
    case 'policies':
      return ['policies', 'decisions']
    case 'volumes':
      return []
    default:
      // A newer controller may know more collections; the pages' own polling covers them.
      return []
  }
}

/** Nearly every change also leaves a trace in these. */
export const STALE_AFTER_ANY = ['events', 'audit'] as const
