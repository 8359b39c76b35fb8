import { queryOptions } from '@tanstack/react-query'
import type { Client } from './client'
import type { InstanceState } from './types'

/** The watch says what changed in the store; what lives outside it (load, free memory, pieces) is asked for. */
const POLL_MS = 2_000
const BOOT_POLL_MS = 500
/** A whole log, seldom looked at. */
const LOG_POLL_MS = 5_000

/** A boot is looked at closely until it is over. */
export function bootPollMs(state: InstanceState | undefined): number {
  return state === 'ready' || state === 'stopped' || state === 'removing' ? POLL_MS : BOOT_POLL_MS
}

export function queriesOf(client: Client) {
  return {
    version: queryOptions({
      queryKey: ['version'],
      queryFn: ({ signal }) => client.version(signal),
      refetchInterval: POLL_MS,
    }),
    deployments: queryOptions({
      queryKey: ['deployments'],
      queryFn: ({ signal }) => client.deployments(signal),
      refetchInterval: POLL_MS,
    }),
    deployment: (name: string) =>
      queryOptions({
        queryKey: ['deployments', name],
        queryFn: ({ signal }) => client.deployment(name, signal),
        refetchInterval: POLL_MS,
      }),
    topology: (name: string) =>
      queryOptions({
        queryKey: ['topology', name],
        queryFn: ({ signal }) => client.topology(name, signal),
        refetchInterval: POLL_MS,
      }),
    instance: (deployment: string, member: string) =>
      queryOptions({
        queryKey: ['instances', deployment, member],
        queryFn: ({ signal }) => client.instance(deployment, member, signal),
        refetchInterval: POLL_MS,
      }),
    boot: (deployment: string, member: string) =>
      queryOptions({
        queryKey: ['boot', deployment, member],
        queryFn: ({ signal }) => client.boot(deployment, member, signal),
        refetchInterval: (query) => bootPollMs(query.state.data?.state),
      }),
    stream: (deployment: string, member: string) =>
      queryOptions({
        queryKey: ['stream', deployment, member],
        queryFn: ({ signal }) => client.stream(deployment, member, signal),
        refetchInterval: POLL_MS,
      }),
    hosts: queryOptions({
      queryKey: ['hosts'],
      queryFn: ({ signal }) => client.hosts(signal),
      refetchInterval: POLL_MS,
    }),
    host: (name: string) =>
      queryOptions({
        queryKey: ['hosts', name],
        queryFn: ({ signal }) => client.host(name, signal),
        refetchInterval: POLL_MS,
      }),
    appliances: queryOptions({
      queryKey: ['appliances'],
      queryFn: ({ signal }) => client.appliances(signal),
      refetchInterval: LOG_POLL_MS,
    }),
    decisions: (instance: string) =>
      queryOptions({
        queryKey: ['decisions', instance],
        queryFn: ({ signal }) => client.decisions(instance, signal),
        refetchInterval: LOG_POLL_MS,
      }),
    policies: queryOptions({
      queryKey: ['policies'],
      queryFn: ({ signal }) => client.policies(signal),
      refetchInterval: LOG_POLL_MS,
    }),
    policy: (name: string) =>
      queryOptions({
        queryKey: ['policies', name],
        queryFn: ({ signal }) => client.policy(name, signal),
        refetchInterval: LOG_POLL_MS,
      }),
    shadow: (name: string) =>
      queryOptions({
        queryKey: ['decisions', 'shadow', name],
        queryFn: ({ signal }) => client.shadow(name, signal),
        refetchInterval: LOG_POLL_MS,
      }),
    decisionsOf: (policy: string) =>
      queryOptions({
        queryKey: ['decisions', 'of', policy],
        queryFn: ({ signal }) => client.decisionsOf(policy, signal),
        refetchInterval: LOG_POLL_MS,
      }),
    trust: queryOptions({
      queryKey: ['policies', 'trust roots'],
      queryFn: ({ signal }) => client.trust(signal),
      refetchInterval: LOG_POLL_MS,
    }),
    events: queryOptions({
      queryKey: ['events'],
      queryFn: ({ signal }) => client.events(signal),
      refetchInterval: LOG_POLL_MS,
    }),
    audit: queryOptions({
      queryKey: ['audit'],
      queryFn: ({ signal }) => client.audit(signal),
      refetchInterval: LOG_POLL_MS,
    }),
  }
}

export type Queries = ReturnType<typeof queriesOf>
