import { useMutation, useQuery, useQueryClient } from '@tanstack/react-query'
import { type ReactNode, useState } from 'react'
import { Link, useLocation } from 'wouter'
import type { DecisionView, InstanceView, PortView } from '../api/types'
import { useApi } from '../app/api'
import { cannotOpenConsole, cannotRenew } from '../app/can'
import { Failure, Loaded } from '../app/Loaded'
import { paths } from '../app/paths'
import { Button } from '../ui/Button'
import { Card } from '../ui/Card'
import { Confirm } from '../ui/Confirm'
import { Empty } from '../ui/Empty'
import { Facts } from '../ui/Facts'
import { formatByteSize, shortDigest } from '../ui/format'
import { None } from '../ui/None'
import { Notice } from '../ui/Notice'
import { PageHead } from '../ui/PageHead'
import { type Column, Table } from '../ui/Table'
import { Time } from '../ui/Time'
import { Boot } from './Boot'
import { ConsoleCard } from './ConsoleCard'
import { Decision } from './Decision'
import { EventList } from './EventList'
import { StateBadge } from './StateBadge'
import { Waits } from './Waits'

interface InstancePageProps {
  deployment: string
  member: string
  consoleOpen: boolean
}

export function InstancePage({ deployment, member, consoleOpen }: InstancePageProps) {
  const { queries } = useApi()
  const instance = useQuery(queries.instance(deployment, member))
  const boot = useQuery(queries.boot(deployment, member))
  const id = `${deployment}/${member}`
  return (
    <>
      <PageHead
        title={member}
        within={[
          <Link key="deployments" href={paths.deployments()}>
            Deployments
          </Link>,
          <Link key="deployment" href={paths.deployment(deployment)}>
            {deployment}
          </Link>,
        ]}
        badge={instance.data && <StateBadge state={boot.data?.state ?? instance.data.state} />}
        actions={instance.data && <Actions instance={instance.data} consoleOpen={consoleOpen} />}
      />
      <div className="stack">
        {instance.data?.reason && <Notice tone="wait">{instance.data.reason}</Notice>}
        {consoleOpen && <ConsoleCard deployment={deployment} member={member} />}
        <Loaded query={boot} lines={8}>
          {(found) => <Boot boot={found} />}
        </Loaded>
        <Card title="Waits">
          <Waits deployment={deployment} member={member} />
        </Card>
        <div className="columns">
          <Card title="Placement">
            <Placement id={id} placement={instance.data?.placement ?? null} />
          </Card>
          <Card title="Instance">
            <Loaded query={instance}>{(found) => <InstanceFacts instance={found} />}</Loaded>
          </Card>
        </div>
        <Card title="Events">
          <EventList isOurs={({ object }) => object === `instance/${id}`} limit={20} />
        </Card>
      </div>
    </>
  )
}

function Actions({ instance, consoleOpen }: { instance: InstanceView; consoleOpen: boolean }) {
  const { queries } = useApi()
  const hosts = useQuery(queries.hosts)
  const [, navigate] = useLocation()
  const [asking, setAsking] = useState(false)
  const host = hosts.data?.find(({ name }) => name === instance.host)
  return (
    <>
      {consoleOpen ? (
        <Button onClick={() => navigate(paths.instance(instance.id))}>Close console</Button>
      ) : (
        <Button
          look="primary"
          denied={cannotOpenConsole(instance, host)}
          onClick={() => navigate(paths.console(instance.id))}
        >
          Open console
        </Button>
      )}
      <Button denied={cannotRenew(instance)} onClick={() => setAsking(true)}>
        Start anew…
      </Button>
      {asking && <Renew instance={instance} onDone={() => setAsking(false)} />}
    </>
  )
}

function Renew({ instance, onDone }: { instance: InstanceView; onDone: () => void }) {
  const { client } = useApi()
  const queryClient = useQueryClient()
  const [deployment = '', member = ''] = instance.id.split('/')
  const renewal = useMutation({
    mutationFn: () => client.renewInstance(deployment, member),
    onSuccess: () => {
      void queryClient.invalidateQueries()
      onDone()
    },
  })
  return (
    <Confirm
      title={`Start ${instance.id} anew?`}
      action="Start anew"
      busy={renewal.isPending}
      onConfirm={() => renewal.mutate()}
      onCancel={onDone}
    >
      <p>
        It is stopped and made again from its image. Its overlay, all that was written to its system disk, is thrown away.
        {instance.volumes.length > 0 && ` Its volumes are kept: ${instance.volumes.join(', ')}.`}
      </p>
      {renewal.error && <Failure error={renewal.error} />}
    </Confirm>
  )
}

function Placement({ id, placement }: { id: string; placement: DecisionView | null }) {
  const { queries } = useApi()
  const decisions = useQuery(queries.decisions(id))
  return (
    <Loaded query={decisions}>
      {(all) => {
        // A later decision that was put off explains an instance that waits better than none.
        const shown = placement ?? all[0]
        if (!shown) return <Empty title="No policy has been asked yet." />
        const others = all.filter((decision) => decision.id !== shown.id)
        return (
          <>
            <Decision decision={shown} />
            {others.length > 0 && (
              <details>
                <summary>Other decisions ({others.length})</summary>
                {others.map((decision) => (
                  <Decision key={decision.id} decision={decision} />
                ))}
              </details>
            )}
          </>
        )
      }}
    </Loaded>
  )
}

function InstanceFacts({ instance }: { instance: InstanceView }) {
  const rows: [string, ReactNode][] = [
    ['Host', instance.host === null ? <None /> : <Link href={paths.host(instance.host)}>{instance.host}</Link>],
    ['Appliance', `${instance.appliance} ${instance.version}`],
    ['Image', <code title={instance.image}>{shortDigest(instance.image)}</code>],
    [
      'Hardware',
      `${instance.vcpus} ${instance.vcpus === 1 ? 'processor' : 'processors'}, ${formatByteSize(instance.memory)}`,
    ],
    ['Volumes', instance.volumes.length === 0 ? <None /> : instance.volumes.join(', ')],
    ['Started', instance.started_ms === null ? <None /> : <Time atMs={instance.started_ms} />],
    ['Starts', instance.starts],
    ['Incarnation', <code>{instance.incarnation}</code>],
  ]
  return (
    <>
      <Facts facts={rows} />
      {instance.ports.length > 0 && (
        <Table label="Ports" columns={PORT_COLUMNS} rows={instance.ports} rowKey={({ name }) => name} />
      )}
    </>
  )
}

const PORT_COLUMNS: readonly Column<PortView>[] = [
  { title: 'Port', cell: ({ name }) => name },
  { title: 'Network', cell: ({ network }) => network },
  { title: 'Address', cell: ({ address }) => (address === null ? <None /> : <code>{address}</code>) },
  { title: 'MAC', cell: ({ mac }) => <code>{mac}</code> },
]
