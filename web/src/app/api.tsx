import { QueryClient, QueryClientProvider } from '@tanstack/react-query'
import { createContext, type ReactNode, useContext, useEffect, useState } from 'react'
import { Client } from '../api/client'
import { followChanges } from '../api/live'
import { type Queries, queriesOf } from '../api/queries'
import { signOut } from './session'
import { Store } from './store'

interface Api {
  client: Client
  queries: Queries
  /** The last request was answered; none yet counts as such. */
  reached: Store<boolean>
  /** Changes are heard as they happen. */
  watching: Store<boolean>
}

const Context = createContext<Api | null>(null)

export function useApi(): Api {
  const api = useContext(Context)
  if (!api) throw new Error('useApi outside of ApiProvider')
  return api
}

function connect(token: string) {
  const reached = new Store(true)
  const watching = new Store(false)
  const client = new Client({ token, onReach: reached.set, onUnauthenticated: signOut })
  const queryClient = new QueryClient({
    // Every query is asked again soon by itself; the first failure is shown at once. The browser's own idea of being
    // offline says nothing about a controller in the same office.
    defaultOptions: {
      queries: { retry: false, networkMode: 'always', staleTime: 250 },
      mutations: { retry: false, networkMode: 'always' },
    },
  })
  return { queryClient, api: { client, queries: queriesOf(client), reached, watching } }
}

/** One connection for one token: what one token was shown is gone with it. Give it the token as `key`. */
export function ApiProvider({ token, children }: { token: string; children: ReactNode }) {
  const [{ queryClient, api }] = useState(() => connect(token))
  useEffect(() => {
    const ends = new AbortController()
    void followChanges(api.client, queryClient, ends.signal, api.watching.set)
    return () => ends.abort()
  }, [api, queryClient])
  return (
    <Context value={api}>
      <QueryClientProvider client={queryClient}>{children}</QueryClientProvider>
    </Context>
  )
}
