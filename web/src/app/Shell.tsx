import { useQuery } from '@tanstack/react-query'
import { type ReactNode, useEffect, useRef } from 'react'
import { Link, useLocation } from 'wouter'
import { Button } from '../ui/Button'
import { Logo } from '../ui/Logo'
import { useApi } from './api'
import { paths } from './paths'
import { signOut } from './session'
import { useStore } from './store'

const PLACES = [
  { label: 'Deployments', path: paths.deployments(), also: '/instances' },
  { label: 'Hosts', path: paths.hosts() },
  { label: 'Streams', path: paths.streams() },
  { label: 'Appliances', path: paths.appliances() },
  { label: 'Policies', path: paths.policies() },
  { label: 'Events', path: paths.events() },
  { label: 'Audit', path: paths.audit() },
]

export function Shell({ children }: { children: ReactNode }) {
  const { reached } = useApi()
  const isReached = useStore(reached)
  const main = useFocusOnNewPage()
  return (
    <div className="shell">
      <a className="skip" href="#main">
        Skip to content
      </a>
      <header className="side">
        <Link className="brand" href={paths.deployments()}>
          <Logo size={28} />
          <span>Collective</span>
        </Link>
        <Places />
        <Connection />
      </header>
      <div className="content">
        <div role="status" aria-live="polite">
          {!isReached && (
            <p className="offline">
              <strong>The controller does not answer.</strong> What you see is what it said last. Trying again…
            </p>
          )}
        </div>
        <main id="main" tabIndex={-1} ref={main}>
          {children}
        </main>
      </div>
    </div>
  )
}

function Places() {
  const [location] = useLocation()
  const isIn = (path: string | undefined) =>
    path !== undefined && (location === path || location.startsWith(`${path}/`))
  return (
    <nav aria-label="Main">
      <ul>
        {PLACES.map(({ label, path, also }) => (
          <li key={path}>
            <Link href={path} aria-current={isIn(path) || isIn(also) ? 'page' : undefined}>
              {label}
            </Link>
          </li>
        ))}
      </ul>
    </nav>
  )
}

function Connection() {
  const { queries, reached, watching } = useApi()
  const version = useQuery(queries.version)
  const isReached = useStore(reached)
  const isWatching = useStore(watching)
  const tone = !isReached ? 'bad' : isWatching ? 'good' : 'busy'
  return (
    <div className="connection">
      <p title={isWatching ? 'Changes are shown as they happen.' : 'Changes are asked for every few seconds.'}>
        <span className={`dot ${tone}`} aria-hidden="true" />
        {!isReached ? 'Offline' : isWatching ? 'Live' : 'Polling'}
      </p>
      {version.data && (
        <p className="hint">
          Version {version.data.version}, revision {version.data.revision}
        </p>
      )}
      <Button onClick={() => signOut()}>Sign out</Button>
    </div>
  )
}

/** A new page is announced to screen readers, and the next Tab begins in it. A console opened on a page is no new page. */
function useFocusOnNewPage() {
  const [location] = useLocation()
  const page = location.replace(/\/console$/, '')
  const main = useRef<HTMLElement>(null)
  const last = useRef(page)
  useEffect(() => {
    if (last.current === page) return
    last.current = page
    main.current?.focus({ preventScroll: true })
    window.scrollTo(0, 0)
  }, [page])
  return main
}
