import { useQuery } from '@tanstack/react-query'
import { useEffect, useRef } from 'react'
import { Link } from 'wouter'
import type { InterpositionView, TopologyLink, TopologyMember, TopologyNetwork, TopologyView } from '../api/types'
import { useApi } from '../app/api'
import { Loaded } from '../app/Loaded'
import { paths } from '../app/paths'
import { Badge } from '../ui/Badge'
import { Card } from '../ui/Card'
import { Empty } from '../ui/Empty'
import { formatCount, formatRate } from '../ui/format'
import { PageHead } from '../ui/PageHead'
import { type Column, Table } from '../ui/Table'
import { BOX, drawingOf, portKey, ratesOf, stateOf } from './topology'

export function TopologyPage({ name }: { name: string }) {
  const { queries } = useApi()
  const topology = useQuery(queries.topology(name))
  return (
    <>
      <PageHead
        title="Topology"
        within={[
          <Link key="deployments" href={paths.deployments()}>
            Deployments
          </Link>,
          <Link key="deployment" href={paths.deployment(name)}>
            {name}
          </Link>,
        ]}
      />
      <Loaded query={topology} lines={8}>
        {(found) => <Topology view={found} />}
      </Loaded>
    </>
  )
}

function Topology({ view }: { view: TopologyView }) {
  const earlier = useRef<TopologyView | null>(null)
  const rates = ratesOf(earlier.current, view)
  useEffect(() => {
    earlier.current = view
  }, [view])
  if (view.members.length === 0) return <Empty title="It has no instances yet." />
  return (
    <div className="stack">
      <Card title="Members and networks">
        <Picture view={view} rates={rates} />
      </Card>
      {view.interpositions.length > 0 && (
        <Card title="In the path">
          <Table
            label="In the path"
            columns={INTERPOSITION_COLUMNS}
            rows={view.interpositions}
            rowKey={({ instance }) => instance}
          />
        </Card>
      )}
    </div>
  )
}

function Picture({ view, rates }: { view: TopologyView; rates: Map<string, number> }) {
  const drawing = drawingOf(view)
  const y = (name: string) => drawing.rows.find((row) => row.name === name)?.y ?? 0
  return (
    <div className="topology">
      <svg
        width={drawing.width}
        height={drawing.height}
        viewBox={`0 0 ${drawing.width} ${drawing.height}`}
        role="group"
        aria-label={`Members and networks of ${view.deployment}`}
      >
        {view.networks.map((network, at) => {
          const column = drawing.columns[at]
          return column && <Network key={network.name} network={network} column={column} />
        })}
        {drawing.lines.map(({ link, x, y }) => (
          <Port key={portKey(link)} link={link} x={x} y={y} rate={rates.get(portKey(link))} />
        ))}
        {view.members.map((member) => (
          <Member key={member.name} deployment={view.deployment} member={member} y={y(member.name)} />
        ))}
      </svg>
    </div>
  )
}

function Network({
  network,
  column,
}: {
  network: TopologyNetwork
  column: { x: number; top: number; bottom: number }
}) {
  const { name, kind, subnets, ready, router } = network
  const about = `${kind}${ready ? '' : ', not ready'}`
  return (
    <g role="group" aria-label={`Network ${name}: ${about}`} className={`topology-network ${ready ? 'good' : 'bad'} ${kind}`}>
      <title>{`${name}: ${about}, ${subnets.join(', ')}`}</title>
      <text className="name" x={column.x} y={18} textAnchor="middle">
        {name}
      </text>
      <text className="hint" x={column.x} y={34} textAnchor="middle">
        {subnets[0] ?? about}
      </text>
      {router && (
        <text className="hint" x={column.x} y={48} textAnchor="middle">
          {`router on ${router.host}${router.ready ? '' : ', not ready'}`}
        </text>
      )}
      <line x1={column.x} x2={column.x} y1={column.top - 8} y2={column.bottom + 8} />
    </g>
  )
}

function Port({ link, x, y, rate }: { link: TopologyLink; x: number; y: number; rate: number | undefined }) {
  const state = stateOf(link)
  const words = { good: 'open as its rules say', wait: 'held: attached to nothing yet', bad: 'not ready: closed' }[state]
  const dropped = link.dropped_frames > 0 ? `, ${formatCount(link.dropped_frames)} frames dropped` : ''
  return (
    <g
      role="group"
      aria-label={`Port ${link.member}/${link.port} on ${link.network}: ${words}${dropped}`}
      className={`topology-port ${state}`}
    >
      <title>{`${link.member}/${link.port} on ${link.network}: ${words}${dropped}`}</title>
      <line x1={BOX.x + BOX.width} x2={x} y1={y} y2={y} />
      <circle cx={x} cy={y} r={5} />
      <text className="hint" x={BOX.x + BOX.width + 6} y={y - 3}>
        {link.addresses[0] ?? link.port}
      </text>
      {rate !== undefined && (
        <text className="rate" x={x + 9} y={y + 4}>
          {formatRate(rate)}
        </text>
      )}
    </g>
  )
}

function Member({ deployment, member, y }: { deployment: string; member: TopologyMember; y: number }) {
  const { name, appliance, host, online, state, gateway, interposed } = member
  const where = host === null ? 'no host yet' : `${host}${online ? '' : ' (offline)'}`
  const kind = interposed ? 'interposed' : gateway ? 'gateway' : ''
  return (
    <g role="group" aria-label={`Member ${name}: ${state}`} className={`topology-member ${state} ${kind}`}>
      <title>{`${name}: ${appliance}, ${state}, ${where}`}</title>
      <rect x={BOX.x} y={y} width={BOX.width} height={BOX.height} rx={8} />
      <Link href={paths.instance(`${deployment}/${name}`)}>
        <text className="name" x={BOX.x + 12} y={y + 21}>
          {name}
        </text>
      </Link>
      <text className="hint" x={BOX.x + 12} y={y + 38}>
        {`${state} · ${where}`}
      </text>
    </g>
  )
}

const INTERPOSITION_COLUMNS: readonly Column<InterpositionView>[] = [
  { title: 'Port', cell: ({ port }) => <span className="strong">{port}</span> },
  { title: 'Goes through', cell: ({ with: appliance }) => appliance },
  { title: 'Instance', cell: ({ instance }) => <Link href={paths.instance(instance)}>{instance.split('/')[1]}</Link> },
  { title: 'Phase', cell: ({ phase }) => phase },
  {
    title: 'Frames',
    cell: ({ passes, reason }) => (
      <>
        <Badge tone={passes ? 'good' : 'bad'}>{passes ? 'pass' : 'nothing passes'}</Badge>
        {reason != null && <p className="hint">{reason}</p>}
      </>
    ),
  },
]
