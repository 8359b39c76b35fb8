import { useQuery } from '@tanstack/react-query'
import type { Stall, StreamReport } from '../api/types'
import { useApi } from '../app/api'
import { Loaded } from '../app/Loaded'
import { Badge } from '../ui/Badge'
import { Empty } from '../ui/Empty'
import { formatCount, formatDuration, formatShare } from '../ui/format'
import { None } from '../ui/None'
import { type Column, Table } from '../ui/Table'
import { CAUSE_WORDS, waiting } from './waiting'

const LONGEST = 20

/** What an instance's boot waited for, and which profile served it. */
export function Waits({ deployment, member }: { deployment: string; member: string }) {
  const { queries } = useApi()
  const stream = useQuery(queries.stream(deployment, member))
  return <Loaded query={stream}>{({ report }) => <Report report={report} />}</Loaded>
}

function Report({ report }: { report: StreamReport }) {
  const { ready_ms: ready, started_ms: started } = report
  const inBoot = report.stalls.filter(({ began_unix_ms: began }) => ready === undefined || began <= ready)
  const longest = [...inBoot].sort((a, b) => b.waited_ms - a.waited_ms).slice(0, LONGEST)
  return (
    <div className="disk">
      <p>
        <Sentence report={report} stalls={inBoot} />
      </p>
      <Served report={report} />
      {longest.length > 0 && (
        <Table
          label="Longest waits"
          columns={columns(started ?? longest[0]?.began_unix_ms ?? 0)}
          rows={longest}
          rowKey={({ began_unix_ms: began, piece }) => `${began}-${piece}`}
        />
      )}
    </div>
  )
}

function Sentence({ report, stalls }: { report: StreamReport; stalls: readonly Stall[] }) {
  const { started_ms: started, ready_ms: ready } = report
  const { count, waitedMs, byCause } = waiting(stalls)
  if (count === 0) return <>No read had to wait.</>
  const added = byCause.reduce((sum, { ms }) => sum + ms, 0)
  const causes = byCause.map(({ cause, ms }) => `${formatShare(ms, added)} ${CAUSE_WORDS[cause]}`).join(', ')
  const reads = `${formatCount(count)} ${count === 1 ? 'read' : 'reads'}`
  const of = started !== undefined && ready !== undefined ? ` of ${formatDuration(ready - started)}` : ''
  return (
    <>
      {formatDuration(waitedMs)}
      {of} were spent waiting, for {reads}: {causes}.
    </>
  )
}

function Served({ report: { run } }: { report: StreamReport }) {
  if (!run) return <Empty title="Its streamer has no record of what it read." />
  return (
    <p>
      {run.profile === undefined ? (
        <Badge tone="wait">No profile fits</Badge>
      ) : (
        <Badge tone="good">Profile {run.profile}</Badge>
      )}{' '}
      <span className="hint">
        {formatCount(run.touched)} pieces read
        {(run.scores ?? []).map(({ profile, score }) => `, ${profile} fits ${score.toFixed(2)}`).join('')}
      </span>
    </p>
  )
}

const SOURCES: Record<string, string> = { origin: 'origin', peer: 'host', web_seed: 'web seed' }

function columns(started: number): readonly Column<Stall>[] {
  return [
    { title: 'At', align: 'right', cell: ({ began_unix_ms: began }) => formatDuration(began - started) },
    { title: 'Waited', align: 'right', cell: ({ waited_ms: waited }) => formatDuration(waited) },
    { title: 'Piece', align: 'right', cell: ({ piece }) => formatCount(piece) },
    {
      title: 'From',
      cell: ({ source, from }) =>
        source === undefined ? (
          <None />
        ) : (
          <>
            {SOURCES[source] ?? source} {from !== undefined && <code>{from}</code>}
          </>
        ),
    },
    { title: 'Cause', cell: ({ why }) => CAUSE_WORDS[why] },
    { title: 'Profile', cell: ({ profile }) => profile ?? <None /> },
  ]
}
