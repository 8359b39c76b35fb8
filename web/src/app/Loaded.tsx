import type { UseQueryResult } from '@tanstack/react-query'
import type { ReactNode } from 'react'
import { Refused, Unreachable } from '../api/client'
import { Notice } from '../ui/Notice'
import { Skeleton } from '../ui/Skeleton'

interface LoadedProps<T> {
  query: UseQueryResult<T>
  /** Lines of the placeholder. */
  lines?: number
  children: (data: T) => ReactNode
}

/** What a query gave. A failure is shown above what was known before; that nobody answers is the shell's to say. */
export function Loaded<T>({ query, lines = 4, children }: LoadedProps<T>) {
  if (query.data === undefined) {
    return query.error ? <Failure error={query.error} /> : <Skeleton lines={lines} />
  }
  return (
    <>
      {query.error && !(query.error instanceof Unreachable) && <Failure error={query.error} />}
      {children(query.data)}
    </>
  )
}

export function Failure({ error }: { error: Error }) {
  const problem = error instanceof Refused ? error.problem : null
  return (
    <Notice tone="bad">
      <p>{error.message}</p>
      {problem?.issues && problem.issues.length > 0 && (
        <ul>
          {problem.issues.map((issue) => (
            <li key={`${issue.line}:${issue.column}:${issue.field}`}>
              {issue.field && <code>{issue.field}</code>} {issue.message}
            </li>
          ))}
        </ul>
      )}
      {problem?.request_id && <p className="hint">Request {problem.request_id}</p>}
    </Notice>
  )
}
