import { useMutation, useQuery, useQueryClient } from '@tanstack/react-query'
import { type ReactNode, useState } from 'react'
import { Link } from 'wouter'
import type { DecisionView, PolicyRelease, PolicyView, ShadowReport } from '../api/types'
import { useApi } from '../app/api'
import { cannotPromote, cannotRollBack } from '../app/can'
import { Failure, Loaded } from '../app/Loaded'
import { objectPath, paths } from '../app/paths'
import { Button } from '../ui/Button'
import { Card } from '../ui/Card'
import { Confirm } from '../ui/Confirm'
import { Empty } from '../ui/Empty'
import { Facts } from '../ui/Facts'
import { formatBytes, formatCount, formatDuration, shortDigest } from '../ui/format'
import { None } from '../ui/None'
import { Notice } from '../ui/Notice'
import { PageHead } from '../ui/PageHead'
import { type Column, Table } from '../ui/Table'
import { Time } from '../ui/Time'
import { VerdictBadge } from './Decision'
import { HealthBadge, Origin, UsedBy } from './PoliciesPage'

export function PolicyPage({ name }: { name: string }) {
  const { queries } = useApi()
  const policy = useQuery(queries.policy(name))
  return (
    <>
      <PageHead
        title={name}
        within={[
          <Link key="policies" href={paths.policies()}>
            Policies
          </Link>,
        ]}
        badge={policy.data && <HealthBadge health={policy.data.health} />}
        actions={policy.data && <Actions policy={policy.data} />}
      />
      <Loaded query={policy} lines={8}>
        {(found) => <Policy policy={found} />}
      </Loaded>
    </>
  )
}

type Action = 'promote' | 'rollBack' | 'dropCandidate'

/** Each changes who decides, so each asks first. */
function Actions({ policy }: { policy: PolicyView }) {
  const { client } = useApi()
  const queryClient = useQueryClient()
  const [asked, setAsked] = useState<Action | null>(null)
  const change = useMutation({
    mutationFn: async (action: Action) => {
      await client[action](policy.name)
    },
    onSuccess: () => {
      setAsked(null)
      return queryClient.invalidateQueries({ queryKey: ['policies'] })
    },
  })
  const before = policy.earlier[0]
  return (
    <>
      {policy.candidate && <Button onClick={() => setAsked('dropCandidate')}>Drop candidate</Button>}
      <Button denied={cannotRollBack(policy)} onClick={() => setAsked('rollBack')}>
        Roll back
      </Button>
      <Button look="primary" denied={cannotPromote(policy)} onClick={() => setAsked('promote')}>
        Promote candidate
      </Button>
      {asked !== null && (
        <Confirm
          title={QUESTIONS[asked].title(policy.name)}
          action={QUESTIONS[asked].action}
          busy={change.isPending}
          onConfirm={() => change.mutate(asked)}
          onCancel={() => {
            change.reset()
            setAsked(null)
          }}
        >
          {asked === 'promote' && policy.candidate && (
            <p>
              {named(policy.candidate)} answers from the next decision on. {named(policy)} can be gone back to.
            </p>
          )}
          {asked === 'rollBack' && before && <p>{named(before)} answers again from the next decision on.</p>}
          {asked === 'dropCandidate' && <p>It is not asked any more. What it would have answered stays with the decisions.</p>}
          {change.error && <Failure error={change.error} />}
        </Confirm>
      )}
    </>
  )
}

const QUESTIONS: Record<Action, { title: (name: string) => string; action: string }> = {
  promote: { title: (name) => `Promote the candidate of ${name}?`, action: 'Promote' },
  rollBack: { title: (name) => `Roll ${name} back?`, action: 'Roll back' },
  dropCandidate: { title: (name) => `Drop the candidate of ${name}?`, action: 'Drop' },
}

const named = ({ component, version }: PolicyRelease) => `${component} ${version}`

function Policy({ policy }: { policy: PolicyView }) {
  return (
    <div className="stack">
      {policy.health.problem !== undefined && (
        <Notice tone="bad">
          <p>{policy.health.problem}</p>
          {policy.health.open_until_ms !== undefined && (
            <p className="hint">
              It is asked again at <Time atMs={policy.health.open_until_ms} />.
            </p>
          )}
        </Notice>
      )}
      <div className="columns">
        <Card title="Who answers">
          <Facts facts={releaseFacts(policy, policy)} />
        </Card>
        <Card title="Settings">
          {policy.settings === undefined ? (
            <Empty title="The component’s own." />
          ) : (
            <pre className="settings">{JSON.stringify(policy.settings, null, 2)}</pre>
          )}
        </Card>
      </div>
      {policy.candidate && <Candidate name={policy.name} />}
      <Card title="Answered before">
        {policy.earlier.length === 0 ? (
          <Empty title="It is the first." />
        ) : (
          <Table label="Answered before" columns={RELEASE_COLUMNS} rows={policy.earlier} rowKey={releaseKey} />
        )}
      </Card>
      <Decisions name={policy.name} />
    </div>
  )
}

function releaseFacts(policy: PolicyView, release: PolicyRelease): [string, ReactNode][] {
  const { on_failure, kind, health, used_by } = policy
  return [
    ['Decides', kind],
    ['Component', named(release)],
    ['Digest', <code key="digest">{release.digest}</code>],
    ['Size', release.size_bytes === 0 ? <None key="size" /> : formatBytes(release.size_bytes)],
    ['Vouched for by', <Origin key="origin" origin={release.origin} />],
    ['Since', release.since_ms === 0 ? <None key="since" /> : <Time key="since" atMs={release.since_ms} />],
    ['Asked', `${formatCount(health.calls)} times since the controller started, ${formatCount(health.failures)} without an answer`],
    [
      'Without an answer',
      on_failure === 'refuse' ? 'nothing happens, and it is asked again' : `policy ${on_failure.fallback} is asked`,
    ],
    ['Used by', <UsedBy key="used" names={used_by} />],
  ]
}

const releaseKey = ({ digest, since_ms }: PolicyRelease) => `${digest} ${since_ms}`

const RELEASE_COLUMNS: readonly Column<PolicyRelease>[] = [
  { title: 'Component', cell: named },
  { title: 'Digest', cell: ({ digest }) => <code title={digest}>{shortDigest(digest)}</code> },
  { title: 'Vouched for by', cell: ({ origin }) => <Origin origin={origin} /> },
  { title: 'Taken into use', cell: ({ since_ms }) => (since_ms === 0 ? <None /> : <Time atMs={since_ms} />) },
  {
    title: 'Settings',
    cell: ({ settings }) => (settings === undefined ? <None /> : <code>{JSON.stringify(settings)}</code>),
  },
]

function Candidate({ name }: { name: string }) {
  const { queries } = useApi()
  const shadow = useQuery(queries.shadow(name))
  return (
    <Card title="Candidate">
      <Loaded query={shadow}>{(report) => <Shadow report={report} />}</Loaded>
    </Card>
  )
}

function Shadow({ report }: { report: ShadowReport }) {
  const { asked, differed, failed, candidate, differences } = report
  return (
    <>
      <p>
        {named(candidate)} <code title={candidate.digest}>{shortDigest(candidate.digest)}</code> is asked the same
        questions, without effect: of {formatCount(asked)} decisions it would have answered {formatCount(differed)}{' '}
        otherwise, and had no answer to {formatCount(failed)}.
      </p>
      {differences.length === 0 ? (
        <Empty title={asked === 0 ? 'Nothing was decided since.' : 'It agrees so far.'} />
      ) : (
        <Table label="Differing answers" columns={DIFFERENCE_COLUMNS} rows={differences} rowKey={({ id }) => id} />
      )}
    </>
  )
}

const SUBJECT: Column<DecisionView> = {
  title: 'About',
  cell: ({ subject }) => {
    const path = objectPath(subject)
    return path === null ? subject : <Link href={path}>{subject}</Link>
  },
}

const DIFFERENCE_COLUMNS: readonly Column<DecisionView>[] = [
  { title: 'Decision', align: 'right', cell: ({ id }) => id },
  SUBJECT,
  { title: 'Answered', cell: ({ outcome }) => outcome },
  { title: 'The candidate', cell: ({ shadow }) => shadow?.outcome ?? <None /> },
]

const DECISION_COLUMNS: readonly Column<DecisionView>[] = [
  { title: 'Decision', align: 'right', cell: ({ id }) => id },
  { title: 'At', cell: ({ at_ms }) => <Time atMs={at_ms} /> },
  SUBJECT,
  {
    title: 'Answer',
    cell: ({ verdict, outcome, fallback, notes }) => (
      <>
        <VerdictBadge verdict={verdict} /> {outcome}
        {fallback && (
          <p className="hint">
            by {fallback.policy}: {fallback.because}
          </p>
        )}
        {!fallback && notes[0] !== undefined && <p className="hint">{notes[0]}</p>}
      </>
    ),
  },
  { title: 'Took', align: 'right', cell: ({ took_us }) => formatDuration(took_us / 1000) },
]

function Decisions({ name }: { name: string }) {
  const { queries } = useApi()
  const decisions = useQuery(queries.decisionsOf(name))
  return (
    <Card title="Last decisions">
      <Loaded query={decisions}>
        {(list) =>
          list.length === 0 ? (
            <Empty title="It has decided nothing yet." />
          ) : (
            <Table label="Last decisions" columns={DECISION_COLUMNS} rows={list} rowKey={({ id }) => id} />
          )
        }
      </Loaded>
    </Card>
  )
}
