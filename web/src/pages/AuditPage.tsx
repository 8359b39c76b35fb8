import { useQuery } from '@tanstack/react-query'
import type { AuditEntry } from '../api/types'
import { useApi } from '../app/api'
import { Loaded } from '../app/Loaded'
import { Empty } from '../ui/Empty'
import { shortDigest } from '../ui/format'
import { PageHead } from '../ui/PageHead'
import { type Column, Table } from '../ui/Table'
import { Time } from '../ui/Time'
import { ObjectLink } from './EventList'

const SHOWN_MAX = 500

const COLUMNS: readonly Column<AuditEntry>[] = [
  { title: 'No.', cell: ({ number }) => number, align: 'right' },
  { title: 'Time', cell: ({ at_ms }) => <Time atMs={at_ms} /> },
  { title: 'Who', cell: ({ who }) => <code>{who}</code> },
  { title: 'Action', cell: ({ action }) => action },
  { title: 'Object', cell: ({ object }) => <ObjectLink object={object} /> },
  { title: 'Revision', cell: ({ revision }) => revision, align: 'right' },
  { title: 'Entry before', cell: ({ previous }) => <code title={previous}>{shortDigest(previous)}</code> },
]

export function AuditPage() {
  const { queries } = useApi()
  const audit = useQuery(queries.audit)
  return (
    <>
      <PageHead title="Audit" />
      <p className="muted lead">Every change somebody asked for. Each entry carries the SHA-256 of the one before it.</p>
      <Loaded query={audit}>
        {(entries) =>
          entries.length === 0 ? (
            <Empty title="Nobody has changed anything yet." />
          ) : (
            <div className="card flush">
              <Table
                label="Audit log"
                columns={COLUMNS}
                rows={entries.toReversed().slice(0, SHOWN_MAX)}
                rowKey={({ number }) => number}
              />
              {entries.length > SHOWN_MAX && <p className="hint more">The newest {SHOWN_MAX} of {entries.length}.</p>}
            </div>
          )
        }
      </Loaded>
    </>
  )
}
