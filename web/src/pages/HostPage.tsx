import { useMutation, useQuery, useQueryClient } from '@tanstack/react-query'
import { type ReactNode, useState } from 'react'
import { Link } from 'wouter'
import type { Counter, HostFacts, HostStatus, HostView, ImageStatus, InstanceStatus, NetworkPortStatus } from '../api/types'
import { useApi } from '../app/api'
import { cannotCordon } from '../app/can'
import { Failure, Loaded } from '../app/Loaded'
import { paths } from '../app/paths'
import { Badge } from '../ui/Badge'
import { Button } from '../ui/Button'
import { Card } from '../ui/Card'
import { Confirm } from '../ui/Confirm'
import { Empty } from '../ui/Empty'
import { Facts } from '../ui/Facts'
import { formatBytes, formatCount, formatShare, shortDigest } from '../ui/format'
import { Meter } from '../ui/Meter'
import { None } from '../ui/None'
import { Notice } from '../ui/Notice'
import { PageHead } from '../ui/PageHead'
import { type Column, Table } from '../ui/Table'
import { Time } from '../ui/Time'
import { EventList } from './EventList'
import { Accelerator, OnlineBadge, ServiceBadge } from './HostsPage'
import { StateBadge } from './StateBadge'

export function HostPage({ name }: { name: string }) {
  const { queries } = useApi()
  const host = useQuery(queries.host(name))
  return (
    <>
      <PageHead
        title={name}
        within={[
          <Link key="hosts" href={paths.hosts()}>
            Hosts
          </Link>,
        ]}
        badge={host.data && <OnlineBadge host={host.data} />}
        actions={host.data && <ServiceAction host={host.data} />}
      />
      <Loaded query={host} lines={8}>
        {(found) => <Host host={found} />}
      </Loaded>
    </>
  )
}

/** Keeps new instances away from the host, or lets them come again. Both can be taken back at once. */
function ServiceAction({ host }: { host: HostView }) {
  const { client } = useApi()
  const queryClient = useQueryClient()
  const [asked, setAsked] = useState(false)
  const open = host.service === 'in_service'
  const change = useMutation({
    mutationFn: () => client.setService(host.name, open ? 'cordoned' : 'in_service'),
    onSuccess: () => {
      setAsked(false)
      return queryClient.invalidateQueries({ queryKey: ['hosts'] })
    },
  })
  const title = open ? `Cordon ${host.name}?` : `Return ${host.name} to service?`
  return (
    <>
      <Button denied={cannotCordon(host)} onClick={() => setAsked(true)}>
        {open ? 'Cordon' : 'Return to service'}
      </Button>
      {asked && (
        <Confirm
          title={title}
          action={open ? 'Cordon' : 'Return to service'}
          busy={change.isPending}
          onConfirm={() => change.mutate()}
          onCancel={() => {
            change.reset()
            setAsked(false)
          }}
        >
          <p>{open ? 'It takes no new instances. Those on it run on.' : 'It takes new instances again.'}</p>
          {change.error && <Failure error={change.error} />}
        </Confirm>
      )}
    </>
  )
}

function Host({ host }: { host: HostView }) {
  const { name, facts, status } = host
  return (
    <div className="stack">
      {status && <Problems status={status} />}
      <div className="columns">
        <Card title="Machine">
          {facts ? <MachineFacts host={host} facts={facts} /> : <Empty title="It has not said yet what it is." />}
        </Card>
        <Card title="Now">
          {facts && status ? <Now facts={facts} status={status} /> : <Empty title="It has not said yet what is on it." />}
        </Card>
      </div>
      {status && (
        <>
          <Card title="Instances">
            {status.instances.length === 0 ? (
              <Empty title="No instance is here." />
            ) : (
              <Table label="Instances" columns={INSTANCE_COLUMNS} rows={status.instances} rowKey={({ id }) => id} />
            )}
          </Card>
          <Card title="Images">
            <Images images={status.images} />
          </Card>
          <Networks status={status} />
        </>
      )}
      <Card title="Events">
        <EventList isOurs={({ object }) => object === `host/${name}`} limit={12} />
      </Card>
    </div>
  )
}

function Problems({ status }: { status: HostStatus }) {
  const problems = [
    ...status.problems,
    ...(status.streamer_up ? [] : ['The streamer does not answer: no disk can be opened. See its log on the host.']),
    ...(status.networks ? [] : ['netd does not answer: no network can be changed. See its log on the host.']),
    ...(status.networks?.failures ?? []),
    ...(status.networks?.conflicts ?? []),
  ]
  if (problems.length === 0) return null
  return (
    <Notice tone="bad">
      <ul>
        {[...new Set(problems)].map((problem) => (
          <li key={problem}>{problem}</li>
        ))}
      </ul>
    </Notice>
  )
}

function MachineFacts({ host, facts }: { host: HostView; facts: HostFacts }) {
  const rows: [string, ReactNode][] = [
    ['Site', host.site],
    ['Role', host.role],
    ['Service', <ServiceBadge key="service" service={host.service} />],
    ['Labels', <Labels key="labels" labels={host.labels ?? {}} />],
    [
      'Vouched for',
      host.attestation ? (
        <>
          {host.attestation.note}
          <p className="hint">
            by {host.attestation.who}, <Time atMs={host.attestation.at_ms} />
          </p>
        </>
      ) : (
        <None />
      ),
    ],
    [
      'Accelerator',
      <>
        <Accelerator host={host} />
        {facts.accelerator_reason !== undefined && <p className="hint">{facts.accelerator_reason}</p>}
      </>,
    ],
    ['Processors', (facts.cpu_total_milli / 1000).toLocaleString('en')],
    ['Underlay address', facts.underlay_address === null ? <None /> : <code>{facts.underlay_address}</code>],
    ['Kernel', facts.kernel],
    ['libvirt', facts.libvirt_version],
    ['QEMU', facts.qemu_version],
    ['Agent', facts.agent_version],
  ]
  return <Facts facts={rows} />
}

function Labels({ labels }: { labels: Record<string, string> }) {
  const pairs = Object.entries(labels)
  if (pairs.length === 0) return <None />
  return (
    <ul className="chips">
      {pairs.map(([key, value]) => (
        <li key={key} className="chip">
          {key}={value}
        </li>
      ))}
    </ul>
  )
}

function Now({ facts, status }: { facts: HostFacts; status: HostStatus }) {
  const rows: [string, ReactNode][] = [
    ['Memory', <Meter key="memory" label="Memory" free={status.memory_free_bytes} total={facts.memory_total_bytes} />],
    ['Disk', <Meter key="disk" label="Disk" free={status.disk_free_bytes} total={facts.disk_total_bytes} />],
    ['Load', status.load.toFixed(2)],
    ['Generation', status.generation],
    [
      'As desired',
      status.converged ? <Badge tone="good">Yes</Badge> : <Badge tone="busy">Not yet</Badge>,
    ],
  ]
  return <Facts facts={rows} />
}

const INSTANCE_COLUMNS: readonly Column<InstanceStatus>[] = [
  {
    title: 'Instance',
    cell: ({ id }) => (
      <Link className="strong" href={paths.instance(id)}>
        {id}
      </Link>
    ),
  },
  {
    title: 'State',
    cell: ({ state, reason }) => (
      <>
        <StateBadge state={state} reason={reason} />
        {reason !== undefined && <p className="hint">{reason}</p>}
      </>
    ),
  },
  { title: 'Starts', align: 'right', cell: ({ starts }) => starts },
  { title: 'Incarnation', cell: ({ incarnation }) => <code>{incarnation}</code> },
]

type NamedImage = ImageStatus & { digest: string }

const IMAGE_COLUMNS: readonly Column<NamedImage>[] = [
  { title: 'Image', cell: ({ digest }) => <code title={digest}>{shortDigest(digest)}</code> },
  { title: 'Size', align: 'right', cell: ({ size_bytes }) => formatBytes(size_bytes) },
  {
    title: 'Here',
    align: 'right',
    cell: ({ pieces, pieces_zero, pieces_local }) =>
      `${formatCount(pieces_local)} of ${formatCount(pieces - pieces_zero)} pieces (${formatShare(pieces_local, pieces - pieces_zero)})`,
  },
  { title: 'From origin', align: 'right', cell: ({ bytes }) => formatBytes(bytes.origin) },
  { title: 'From peers', align: 'right', cell: ({ bytes }) => formatBytes(bytes.peer) },
  { title: 'Given', align: 'right', cell: ({ bytes_uploaded }) => formatBytes(bytes_uploaded) },
  { title: 'Stalls', align: 'right', cell: ({ stalls }) => formatCount(stalls.count) },
  { title: 'Trouble', cell: ({ trouble }) => trouble ?? <None /> },
]

function Images({ images }: { images: Record<string, ImageStatus> }) {
  const rows = Object.entries(images).map(([digest, image]) => ({ ...image, digest }))
  if (rows.length === 0) return <Empty title="No image is here." />
  return <Table label="Images" columns={IMAGE_COLUMNS} rows={rows} rowKey={({ digest }) => digest} />
}

const sum = (...counters: Counter[]) => formatCount(counters.reduce((frames, counter) => frames + counter.frames, 0))

const PORT_COLUMNS: readonly Column<NetworkPortStatus>[] = [
  { title: 'Port', cell: ({ id }) => id },
  { title: 'Tap', cell: ({ tap }) => <code>{tap}</code> },
  {
    title: 'State',
    cell: ({ ready, carrier }) =>
      ready ? (
        <Badge tone={carrier ? 'good' : 'muted'}>{carrier ? 'In use' : 'Ready'}</Badge>
      ) : (
        <Badge tone="busy">Not ready</Badge>
      ),
  },
  { title: 'From guest', align: 'right', cell: ({ from_guest }) => formatBytes(from_guest.bytes) },
  { title: 'To guest', align: 'right', cell: ({ to_guest }) => formatBytes(to_guest.bytes) },
  {
    title: 'Denied frames',
    align: 'right',
    cell: ({ dropped_from_guest, dropped_to_guest }) => sum(dropped_from_guest, dropped_to_guest),
  },
  { title: 'Spoofed frames', align: 'right', cell: ({ dropped_spoofed }) => sum(dropped_spoofed) },
]

function Networks({ status }: { status: HostStatus }) {
  return status.networks?.networks.map(({ id, up, ports }) => (
    <Card key={id} title={`Network ${id}`} aside={<Badge tone={up ? 'good' : 'bad'}>{up ? 'Up' : 'Down'}</Badge>}>
      {ports.length === 0 ? (
        <Empty title="No port is here." />
      ) : (
        <Table label={`Ports of ${id}`} columns={PORT_COLUMNS} rows={ports} rowKey={(port) => port.id} />
      )}
    </Card>
  ))
}
