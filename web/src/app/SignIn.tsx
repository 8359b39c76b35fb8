import { type FormEvent, useState } from 'react'
import { Client } from '../api/client'
import { Button } from '../ui/Button'
import { Logo } from '../ui/Logo'
import { Notice } from '../ui/Notice'
import { signIn } from './session'

export function SignIn({ ended }: { ended: string | null }) {
  const [token, setToken] = useState('')
  const [problem, setProblem] = useState<string | null>(ended)
  const [checking, setChecking] = useState(false)

  async function submit(event: FormEvent) {
    event.preventDefault()
    const wanted = token.trim()
    if (wanted === '' || checking) return
    setChecking(true)
    setProblem(null)
    try {
      await new Client({ token: wanted }).version()
      signIn(wanted)
    } catch (error) {
      setProblem(error instanceof Error ? error.message : String(error))
      setChecking(false)
    }
  }

  return (
    <main className="sign-in">
      <title>Sign in · Collective</title>
      <form className="sign-in-card" onSubmit={(event) => void submit(event)}>
        <Logo size={44} />
        <h1>Collective</h1>
        <p className="muted">Sign in with an API token of this controller.</p>
        {/* For password managers, which want a name beside the secret. */}
        <input type="text" name="username" autoComplete="username" defaultValue="token" hidden readOnly />
        <label htmlFor="token">Token</label>
        <input
          id="token"
          type="password"
          autoComplete="current-password"
          autoFocus
          spellCheck={false}
          value={token}
          aria-invalid={problem !== null}
          aria-describedby={problem === null ? undefined : 'sign-in-problem'}
          onChange={(event) => setToken(event.target.value)}
        />
        {problem !== null && (
          <div id="sign-in-problem">
            <Notice tone="bad">{problem}</Notice>
          </div>
        )}
        <Button
          type="submit"
          look="primary"
          denied={checking ? 'The controller is being asked.' : token.trim() === '' ? 'Enter a token first.' : null}
        >
          {checking ? 'Signing in…' : 'Sign in'}
        </Button>
        <p className="hint">
          It is kept in this tab only, and gone when the tab is closed.
        </p>
      </form>
    </main>
  )
}
