import { useSearchParams } from 'wouter'
import { PageHead } from '../ui/PageHead'
import { EventList } from './EventList'

const SHOWN_MAX = 500

export function EventsPage() {
  const [parameters, setParameters] = useSearchParams()
  const filter = parameters.get('filter') ?? ''
  const words = filter.toLowerCase().split(/\s+/)
  return (
    <>
      <PageHead
        title="Events"
        actions={
          <input
            type="search"
            aria-label="Filter events"
            placeholder="Filter, such as h1 or office/gateway"
            value={filter}
            onChange={({ target }) => setParameters(target.value === '' ? {} : { filter: target.value }, { replace: true })}
          />
        }
      />
      <div className="card flush">
        <EventList
          isOurs={({ object, reason, message }) => {
            const text = `${object} ${reason} ${message}`.toLowerCase()
            return words.every((word) => text.includes(word))
          }}
          limit={SHOWN_MAX}
        />
      </div>
    </>
  )
}
