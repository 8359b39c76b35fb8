import { useQuery } from '@tanstack/react-query'
import { Link } from 'wouter'
import type { HostService, HostView } from '../api/types'
import { useApi } from '../app/api'
import { Loaded } from '../app/Loaded'
import { paths } from '../app/paths'
import { Badge } from '../ui/Badge'
import { Empty } from '../ui/Empty'
import { Meter } from '../ui/Meter'
import { None } from '../ui/None'
import type { Tone } from '../ui/Notice'
import { PageHead } from '../ui/PageHead'
import { type Column, Table } from '../ui/Table'
import { Elapsed } from '../ui/Time'

const COLUMNS: readonly Column<HostView>[] = [
  {
    title: 'Host',
    cell: ({ name }) => (
      <Link className="strong" href={paths.host(name)}>
        {name}
      </Link>
    ),
  },
  {
    title: 'State',
    cell: (host) => (
      <>
        <OnlineBadge host={host} /> {host.service !== 'in_service' && <ServiceBadge service={host.service} />}
      </>
    ),
  },
  { title: 'Site', cell: ({ site }) => site },
  { title: 'Role', cell: ({ role }) => role },
  { title: 'Accelerator', cell: (host) => <Accelerator host={host} /> },
  {
    title: 'Memory',
    cell: ({ facts, status }) =>
      facts && status ? (
        <Meter label="Memory" free={status.memory_free_bytes} total={facts.memory_total_bytes} />
      ) : (
        <None />
      ),
  },
  { title: 'Load', align: 'right', cell: ({ status }) => (status ? status.load.toFixed(2) : <None />) },
  { title: 'Instances', align: 'right', cell: ({ status }) => (status ? status.instances.length : <None />) },
]

export function HostsPage() {
  const { queries } = useApi()
  const hosts = useQuery(queries.hosts)
  return (
    <>
      <PageHead title="Hosts" />
      <Loaded query={hosts}>
        {(list) =>
          list.length === 0 ? (
            <Empty title="No host has joined yet.">
              Make a one-time join token with the <code>collective</code> command and give it to the host's agent.
            </Empty>
          ) : (
            <div className="card flush">
              <Table label="Hosts" columns={COLUMNS} rows={list} rowKey={({ name }) => name} />
            </div>
          )
        }
      </Loaded>
    </>
  )
}

export function OnlineBadge({ host }: { host: HostView }) {
  if (!host.online) {
    return (
      <>
        <Badge tone="bad">Offline</Badge>
        {host.seen_ms !== null && (
          <p className="hint">
            last heard <Elapsed sinceMs={host.seen_ms} /> ago
          </p>
        )}
      </>
    )
  }
  const problems = host.status?.problems.length ?? 0
  if (problems > 0) return <Badge tone="bad">{problems === 1 ? '1 problem' : `${problems} problems`}</Badge>
  return <Badge tone="good">Online</Badge>
}

const SERVICES: Record<HostService, { tone: Tone; word: string }> = {
  in_service: { tone: 'good', word: 'In service' },
  cordoned: { tone: 'wait', word: 'Cordoned' },
  draining: { tone: 'wait', word: 'Draining' },
  maintenance: { tone: 'wait', word: 'Maintenance' },
}

/** Whether it takes instances, as people say it. */
export function ServiceBadge({ service }: { service: HostService }) {
  const { tone, word } = SERVICES[service]
  return <Badge tone={tone}>{word}</Badge>
}

export function Accelerator({ host }: { host: HostView }) {
  if (!host.facts) return <None />
  const { accelerator, accelerator_reason: reason } = host.facts
  return (
    <Badge tone={accelerator === 'kvm' ? 'good' : 'wait'} title={reason}>
      {accelerator.toUpperCase()}
    </Badge>
  )
}
