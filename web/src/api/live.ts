import type { QueryClient } from '@tanstack/react-query'
import { type Client, Refused } from './client'
import { STALE_AFTER_ANY, staleAfter } from './stale'

const PAUSE_MS_MIN = 500
const PAUSE_MS_MAX = 5_000
/** Changes that come together are fetched together. */
const GATHER_MS = 100

/**
 * Follows the controller's changes and lets go of what they make stale, until aborted. After every interruption all is
 * stale: what happened meanwhile was not heard.
 */
export async function followChanges(
  client: Client,
  queryClient: QueryClient,
  signal: AbortSignal,
  onWatching: (watching: boolean) => void,
): Promise<void> {
  const stale = gather(queryClient, signal)
  let pauseMs = PAUSE_MS_MIN
  while (!signal.aborted) {
    try {
      const { revision } = await client.version(signal)
      const changes = client.watch(revision, signal)
      void queryClient.invalidateQueries({}, { cancelRefetch: false })
      onWatching(true)
      pauseMs = PAUSE_MS_MIN
      for await (const change of changes) stale([...staleAfter(change.collection), ...STALE_AFTER_ANY])
    } catch (error) {
      if (error instanceof Refused && error.status === 401) return
    }
    onWatching(false)
    await pause(pauseMs, signal)
    pauseMs = Math.min(PAUSE_MS_MAX, pauseMs * 2)
  }
}

function gather(queryClient: QueryClient, signal: AbortSignal) {
  const gathered = new Set<unknown>()
  let timer: ReturnType<typeof setTimeout> | undefined
  const flush = () => {
    timer = undefined
    const words = new Set(gathered)
    gathered.clear()
    if (signal.aborted) return
    void queryClient.invalidateQueries({ predicate: (query) => words.has(query.queryKey[0]) }, { cancelRefetch: false })
  }
  return (words: readonly string[]) => {
    for (const word of words) gathered.add(word)
    timer ??= setTimeout(flush, GATHER_MS)
  }
}

function pause(milliseconds: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, milliseconds)
    signal.addEventListener('abort', () => (clearTimeout(timer), resolve()), { once: true })
  })
}
