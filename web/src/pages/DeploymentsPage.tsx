import { useQuery } from '@tanstack/react-query'
import { Link } from 'wouter'
import type { DeploymentView } from '../api/types'
import { useApi } from '../app/api'
import { Loaded } from '../app/Loaded'
import { paths } from '../app/paths'
import { Badge } from '../ui/Badge'
import { Empty } from '../ui/Empty'
import { None } from '../ui/None'
import { PageHead } from '../ui/PageHead'
import { type Column, Table } from '../ui/Table'
import { stateTone } from './StateBadge'

const COLUMNS: readonly Column<DeploymentView>[] = [
  {
    title: 'Deployment',
    cell: ({ name }) => (
      <Link className="strong" href={paths.deployment(name)}>
        {name}
      </Link>
    ),
  },
  { title: 'State', cell: (deployment) => <ReadyBadge deployment={deployment} /> },
  { title: 'Instances', cell: ({ instances }) => <Instances instances={instances} /> },
  { title: 'Bundle', cell: ({ spec }) => spec.bundle },
  { title: 'User', cell: ({ spec }) => spec.user ?? <None /> },
  { title: 'Site', cell: ({ spec }) => spec.site ?? <None /> },
]

export function DeploymentsPage() {
  const { queries } = useApi()
  const deployments = useQuery(queries.deployments)
  return (
    <>
      <PageHead title="Deployments" />
      <Loaded query={deployments}>
        {(list) =>
          list.length === 0 ? (
            <Empty title="Nothing is deployed yet.">
              Write a bundle and a deployment, then run <code>collective apply -f office.yaml</code>.
            </Empty>
          ) : (
            <div className="card flush">
              <Table label="Deployments" columns={COLUMNS} rows={list} rowKey={({ name }) => name} />
            </div>
          )
        }
      </Loaded>
    </>
  )
}

export function ReadyBadge({ deployment }: { deployment: DeploymentView }) {
  if (deployment.ready) return <Badge tone="good">Ready</Badge>
  const problems = deployment.problems.length
  if (problems > 0) return <Badge tone="bad">{problems === 1 ? '1 problem' : `${problems} problems`}</Badge>
  const ready = deployment.instances.filter(({ state }) => state === 'ready').length
  return (
    <Badge tone="busy">
      {ready} of {deployment.instances.length} ready
    </Badge>
  )
}

function Instances({ instances }: Pick<DeploymentView, 'instances'>) {
  return (
    <ul className="chips">
      {instances.map(({ id, state, host }) => (
        <li key={id}>
          <Link className="chip" href={paths.instance(id)} title={`${state}${host === null ? '' : ` on ${host}`}`}>
            <span className={`dot ${stateTone(state)}`} aria-hidden="true" />
            {id.split('/')[1]}
            <span className="sr-only"> is {state}</span>
          </Link>
        </li>
      ))}
    </ul>
  )
}
