import { useQuery } from '@tanstack/react-query'
import { Link } from 'wouter'
import type { PolicyHealth, PolicyOrigin, PolicyView, TrustRootView } from '../api/types'
import { useApi } from '../app/api'
import { Loaded } from '../app/Loaded'
import { objectPath, paths } from '../app/paths'
import { Badge } from '../ui/Badge'
import { Card } from '../ui/Card'
import { Empty } from '../ui/Empty'
import { formatCount, formatShare, shortDigest } from '../ui/format'
import { None } from '../ui/None'
import { PageHead } from '../ui/PageHead'
import { type Column, Table } from '../ui/Table'
import { Time } from '../ui/Time'

const COLUMNS: readonly Column<PolicyView>[] = [
  {
    title: 'Policy',
    cell: ({ name, summary }) => (
      <>
        <Link className="strong" href={paths.policy(name)}>
          {name}
        </Link>
        <p className="hint">{summary}</p>
      </>
    ),
  },
  { title: 'Decides', cell: ({ kind }) => kind },
  { title: 'Health', cell: ({ health }) => <HealthBadge health={health} /> },
  {
    title: 'Answers',
    cell: ({ component, version, digest }) => (
      <>
        {component} {version} <code title={digest}>{shortDigest(digest)}</code>
      </>
    ),
  },
  { title: 'Vouched for by', cell: ({ origin }) => <Origin origin={origin} /> },
  {
    title: 'Candidate',
    cell: ({ candidate }) => (candidate ? <Badge tone="busy">{candidate.version}</Badge> : <None />),
  },
  { title: 'Used by', cell: ({ used_by }) => <UsedBy names={used_by} /> },
]

const TRUST_COLUMNS: readonly Column<TrustRootView>[] = [
  { title: 'Key', cell: ({ name }) => <strong>{name}</strong> },
  { title: 'Vouches for', cell: ({ kinds }) => kinds.join(', ') },
  { title: 'Fingerprint', cell: ({ key_id }) => <code title={key_id}>{shortDigest(key_id)}</code> },
  { title: 'Expires', cell: ({ expires_ms }) => (expires_ms === undefined ? 'never' : <Time atMs={expires_ms} />) },
  { title: 'Answering now', cell: ({ policies }) => (policies.length === 0 ? <None /> : policies.join(', ')) },
]

export function PoliciesPage() {
  const { queries } = useApi()
  const policies = useQuery(queries.policies)
  const trust = useQuery(queries.trust)
  return (
    <>
      <PageHead title="Policies" />
      <div className="stack">
        <Loaded query={policies}>
          {(list) =>
            list.length === 0 ? (
              <Empty title="No policy is installed.">
                Install one with <code>collective policy install</code>.
              </Empty>
            ) : (
              <div className="card flush">
                <Table label="Policies" columns={COLUMNS} rows={list} rowKey={({ name }) => name} />
              </div>
            )
          }
        </Loaded>
        <Card title="Trusted keys">
          <Loaded query={trust}>
            {(roots) =>
              roots.length === 0 ? (
                <Empty title="No key is trusted.">
                  Only what came with the controller runs. Trust a key with <code>collective policy trust add</code>.
                </Empty>
              ) : (
                <Table label="Trusted keys" columns={TRUST_COLUMNS} rows={roots} rowKey={({ name }) => name} />
              )
            }
          </Loaded>
        </Card>
      </div>
    </>
  )
}

export function HealthBadge({ health }: { health: PolicyHealth }) {
  const { calls, failures, open_until_ms, problem } = health
  if (open_until_ms !== undefined) return <Badge tone="bad" title={problem}>Not asked: it failed too often</Badge>
  if (problem !== undefined) return <Badge tone="wait" title={problem}>See its page</Badge>
  if (calls === 0) return <Badge tone="muted">Not asked yet</Badge>
  if (failures > 0) return <Badge tone="wait">{formatShare(failures, calls)} failed</Badge>
  return <Badge tone="good">{formatCount(calls)} answers</Badge>
}

export function Origin({ origin }: { origin: PolicyOrigin }) {
  switch (origin.by) {
    case 'built_in':
      return 'the controller’s package'
    case 'signed':
      return (
        <>
          {origin.root} <code title={origin.key}>{shortDigest(origin.key)}</code>
        </>
      )
    case 'unsigned':
      return <Badge tone="wait">Nobody</Badge>
  }
}

export function UsedBy({ names }: { names: string[] }) {
  if (names.length === 0) return <None />
  return (
    <ul className="chips">
      {names.map((name) => {
        const path = objectPath(name)
        return (
          <li key={name} className="chip">
            {path === null ? name : <Link href={path}>{name}</Link>}
          </li>
        )
      })}
    </ul>
  )
}
