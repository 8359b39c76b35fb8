import { useQuery } from '@tanstack/react-query'
import { Link } from 'wouter'
import type { DeploymentView, InstanceView, PortView } from '../api/types'
import { useApi } from '../app/api'
import { Loaded } from '../app/Loaded'
import { paths } from '../app/paths'
import { Card } from '../ui/Card'
import { Empty } from '../ui/Empty'
import { formatByteSize, formatDuration } from '../ui/format'
import { None } from '../ui/None'
import { Notice } from '../ui/Notice'
import { PageHead } from '../ui/PageHead'
import { type Column, Table } from '../ui/Table'
import { DecisionSummary } from './Decision'
import { ReadyBadge } from './DeploymentsPage'
import { EventList } from './EventList'
import { StateBadge } from './StateBadge'

export function DeploymentPage({ name }: { name: string }) {
  const { queries } = useApi()
  const deployment = useQuery(queries.deployment(name))
  return (
    <>
      <PageHead
        title={name}
        within={[
          <Link key="deployments" href={paths.deployments()}>
            Deployments
          </Link>,
        ]}
        badge={deployment.data && <ReadyBadge deployment={deployment.data} />}
      />
      <Loaded query={deployment} lines={8}>
        {(found) => <Deployment deployment={found} />}
      </Loaded>
    </>
  )
}

function Deployment({ deployment }: { deployment: DeploymentView }) {
  const { name, spec, instances, problems } = deployment
  return (
    <div className="stack">
      <p className="muted lead">
        Bundle <strong>{spec.bundle}</strong>
        {spec.user !== undefined && (
          <>
            {' '}
            for <strong>{spec.user}</strong>
          </>
        )}
        {spec.site !== undefined && (
          <>
            {' '}
            at site <strong>{spec.site}</strong>
          </>
        )}
        {' · '}
        <Link href={paths.topology(name)}>Topology</Link>
      </p>
      {problems.length > 0 && (
        <Notice tone="bad">
          <ul>
            {problems.map((problem) => (
              <li key={problem}>{problem}</li>
            ))}
          </ul>
        </Notice>
      )}
      <Card title="Instances">
        {instances.length === 0 ? (
          <Empty title="It has no instances yet." />
        ) : (
          <Table label="Instances" columns={INSTANCE_COLUMNS} rows={instances} rowKey={({ id }) => id} />
        )}
      </Card>
      <Networks instances={instances} />
      <Card title="Placement">
        <ul className="decisions">
          {instances.map(({ id, placement }) => (
            <li key={id}>
              <DecisionSummary member={id.split('/')[1] ?? id} decision={placement} />
            </li>
          ))}
        </ul>
      </Card>
      <Card title="Events">
        <EventList
          isOurs={({ object }) => object === `deployment/${name}` || object.startsWith(`instance/${name}/`)}
          limit={12}
        />
      </Card>
    </div>
  )
}

const INSTANCE_COLUMNS: readonly Column<InstanceView>[] = [
  {
    title: 'Instance',
    cell: ({ id }) => (
      <Link className="strong" href={paths.instance(id)}>
        {id.split('/')[1]}
      </Link>
    ),
  },
  {
    title: 'State',
    cell: ({ state, reason }) => (
      <>
        <StateBadge state={state} reason={reason} />
        {reason !== null && <p className="hint">{reason}</p>}
      </>
    ),
  },
  {
    title: 'Host',
    cell: ({ host }) => (host === null ? <None /> : <Link href={paths.host(host)}>{host}</Link>),
  },
  { title: 'Addresses', cell: ({ ports }) => <Addresses ports={ports} /> },
  {
    title: 'Appliance',
    cell: ({ appliance, version }) => (
      <>
        {appliance} <span className="muted">{version}</span>
      </>
    ),
  },
  {
    title: 'Hardware',
    cell: ({ vcpus, memory }) => `${vcpus} ${vcpus === 1 ? 'processor' : 'processors'}, ${formatByteSize(memory)}`,
  },
  {
    title: 'Time to ready',
    align: 'right',
    cell: ({ started_ms, ready_ms }) =>
      started_ms === null || ready_ms === null ? <None /> : formatDuration(ready_ms - started_ms),
  },
]

function Addresses({ ports }: { ports: PortView[] }) {
  const addresses = ports.flatMap(({ address }) => (address === null ? [] : [address]))
  return addresses.length === 0 ? <None /> : <span className="mono">{addresses.join(', ')}</span>
}

interface NetworkPort extends PortView {
  instance: string
}

const PORT_COLUMNS: readonly Column<NetworkPort>[] = [
  {
    title: 'Port',
    cell: ({ instance, name }) => (
      <>
        <Link href={paths.instance(instance)}>{instance.split('/')[1]}</Link> <span className="muted">{name}</span>
      </>
    ),
  },
  { title: 'Address', cell: ({ address }) => (address === null ? <None /> : <span className="mono">{address}</span>) },
  { title: 'MAC', cell: ({ mac }) => <span className="mono">{mac}</span> },
  { title: 'Tap', cell: ({ tap }) => <span className="mono">{tap}</span> },
]

function Networks({ instances }: { instances: InstanceView[] }) {
  const ports = instances.flatMap((instance) => instance.ports.map((port) => ({ ...port, instance: instance.id })))
  const names = [...new Set(ports.map(({ network }) => network))].sort()
  return (
    <div className="columns">
      {names.map((name) => (
        <Card key={name} title={`Network ${name}`}>
          <Table
            label={`Ports of network ${name}`}
            columns={PORT_COLUMNS}
            rows={ports.filter(({ network }) => network === name)}
            rowKey={({ mac }) => mac}
          />
        </Card>
      ))}
    </div>
  )
}
