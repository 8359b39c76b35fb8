import { Store } from './store'

/** The token lives as long as the browser's tab. */
const KEY = 'collective.token'

interface Session {
  token: string | null
  /** Why the last one ended, if not by its user. */
  ended: string | null
}

export const session = new Store<Session>({ token: sessionStorage.getItem(KEY), ended: null })

export function signIn(token: string) {
  sessionStorage.setItem(KEY, token)
  session.set({ token, ended: null })
}

export function signOut(ended: string | null = null) {
  sessionStorage.removeItem(KEY)
  session.set({ token: null, ended })
}
