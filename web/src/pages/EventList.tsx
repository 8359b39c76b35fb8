import { useQuery } from '@tanstack/react-query'
import { Link } from 'wouter'
import type { Event } from '../api/types'
import { useApi } from '../app/api'
import { Loaded } from '../app/Loaded'
import { objectPath } from '../app/paths'
import { Empty } from '../ui/Empty'
import { type Column, Table } from '../ui/Table'
import { Time } from '../ui/Time'

const COLUMNS: readonly Column<Event>[] = [
  { title: 'Time', cell: ({ at_ms }) => <Time atMs={at_ms} /> },
  { title: 'Object', cell: ({ object }) => <ObjectLink object={object} /> },
  { title: 'Reason', cell: ({ reason }) => <code>{reason}</code> },
  { title: 'Message', cell: ({ message }) => message },
]

/** Events that are ours, newest first. */
export function EventList({ isOurs, limit }: { isOurs: (event: Event) => boolean; limit: number }) {
  const { queries } = useApi()
  const events = useQuery(queries.events)
  return (
    <Loaded query={events}>
      {(all) => {
        const ours = all.filter(isOurs).reverse()
        if (ours.length === 0) return <Empty title="Nothing has happened yet." />
        return (
          <>
            <Table
              label="Events"
              columns={COLUMNS}
              rows={ours.slice(0, limit)}
              rowKey={({ revision, object, reason, at_ms }) => `${revision} ${at_ms} ${object} ${reason}`}
            />
            {ours.length > limit && <p className="hint more">The newest {limit} of {ours.length}.</p>}
          </>
        )
      }}
    </Loaded>
  )
}

export function ObjectLink({ object }: { object: string }) {
  const path = objectPath(object)
  return path === null ? <>{object}</> : <Link href={path}>{object}</Link>
}
