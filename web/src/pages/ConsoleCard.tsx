import { lazy, Suspense, useState } from 'react'
import { useLocation } from 'wouter'
import { useApi } from '../app/api'
import { paths } from '../app/paths'
import { Button } from '../ui/Button'
import { Card } from '../ui/Card'
import { Notice } from '../ui/Notice'
import { Skeleton } from '../ui/Skeleton'

// The terminal is larger than all the rest, and seldom wanted.
const Terminal = lazy(() => import('../ui/Terminal'))

export function ConsoleCard({ deployment, member }: { deployment: string; member: string }) {
  const { client } = useApi()
  const [, navigate] = useLocation()
  const [attempt, setAttempt] = useState(0)
  const [ended, setEnded] = useState<string | null>(null)
  const again = () => {
    setEnded(null)
    setAttempt(attempt + 1)
  }
  const url = client.consoleUrl(deployment, member, window.location.origin)
  return (
    <Card title="Console" aside={<span className="hint">Ctrl+] leaves it</span>}>
      <Suspense fallback={<Skeleton lines={6} />}>
        <Terminal
          key={attempt}
          label={`Console of ${deployment}/${member}`}
          url={url}
          onEnd={setEnded}
          onLeave={() => navigate(paths.instance(`${deployment}/${member}`))}
        />
      </Suspense>
      {ended !== null && (
        <Notice tone="wait">
          <p>{ended}</p>
          <Button onClick={again}>Connect again</Button>
        </Notice>
      )}
    </Card>
  )
}
