import { Link } from 'wouter'
import type { ChoiceView, DecisionView, Verdict } from '../api/types'
import { paths } from '../app/paths'
import { Badge } from '../ui/Badge'
import { formatDuration, shortDigest } from '../ui/format'
import type { Tone } from '../ui/Notice'
import { parseReason } from '../ui/reason'
import { Time } from '../ui/Time'

const VERDICTS: Partial<Record<Verdict, { tone: Tone; word: string }>> = {
  place: { tone: 'good', word: 'Placed' },
  defer: { tone: 'wait', word: 'Deferred' },
  refuse: { tone: 'bad', word: 'Refused' },
  error: { tone: 'bad', word: 'Policy failed' },
  proceed: { tone: 'good', word: 'Proceeds' },
  hold: { tone: 'wait', word: 'Holds' },
  halt: { tone: 'bad', word: 'Halted' },
  roll_back: { tone: 'bad', word: 'Rolls back' },
  complete: { tone: 'good', word: 'Complete' },
}

export function VerdictBadge({ verdict }: { verdict: Verdict }) {
  // A kind may have words that this page does not know: they are shown as they are.
  const { tone, word } = VERDICTS[verdict] ?? { tone: 'muted', word: verdict.replaceAll('_', ' ') }
  return <Badge tone={tone}>{word}</Badge>
}

/** In one line: where, and the first reason. */
export function DecisionSummary({ member, decision }: { member: string; decision: DecisionView | null }) {
  const chosen = decision?.choices.find(({ host }) => host === decision.host)
  return (
    <div className="decision-summary">
      <strong>{member}</strong>
      {decision === null && <span className="muted">No placement decision yet.</span>}
      {decision !== null && (
        <>
          <span>
            <VerdictBadge verdict={decision.verdict} />{' '}
            {decision.host !== null && (
              <>
                on <Link href={paths.host(decision.host)}>{decision.host}</Link>
              </>
            )}{' '}
            by policy <Link href={paths.policy(decision.policy)}>{decision.policy}</Link>
          </span>
          <ul className="reasons">
            {(chosen?.reasons ?? decision.notes).map((reason) => (
              <ReasonLine key={reason} reason={reason} />
            ))}
          </ul>
        </>
      )}
    </div>
  )
}

/** All a policy answered: every host it proposed, with scores and reasons. */
export function Decision({ decision }: { decision: DecisionView }) {
  const scoreMax = Math.max(0, ...decision.choices.map(({ score }) => score))
  return (
    <div className="decision">
      <p>
        <VerdictBadge verdict={decision.verdict} /> by policy{' '}
        <Link className="strong" href={paths.policy(decision.policy)}>
          {decision.policy}
        </Link>
      </p>
      {decision.choices.length > 0 && (
        <ol className="choices">
          {decision.choices.map((choice) => (
            <Choice key={choice.host} choice={choice} chosen={choice.host === decision.host} scoreMax={scoreMax} />
          ))}
        </ol>
      )}
      {decision.notes.length > 0 && (
        <ul className="reasons notes">
          {decision.notes.map((note) => (
            <ReasonLine key={note} reason={note} />
          ))}
        </ul>
      )}
      {decision.fallback !== undefined && (
        <p>
          <strong>{decision.fallback.policy}</strong> was asked instead: {decision.fallback.because}
        </p>
      )}
      {decision.shadow?.differs === true && (
        <p>
          The candidate <strong>{decision.shadow.component}</strong> would have answered: {decision.shadow.outcome}
        </p>
      )}
      <p className="hint">
        Decision {decision.id}, <Time atMs={decision.at_ms} />, took {formatDuration(decision.took_us / 1000)}. Component{' '}
        {decision.component} <code title={decision.digest}>{shortDigest(decision.digest)}</code>, input{' '}
        <code title={decision.input}>{shortDigest(decision.input)}</code>.
      </p>
    </div>
  )
}

function Choice({ choice, chosen, scoreMax }: { choice: ChoiceView; chosen: boolean; scoreMax: number }) {
  return (
    <li className={chosen ? 'choice chosen' : 'choice'}>
      <div className="choice-head">
        <Link href={paths.host(choice.host)}>{choice.host}</Link>
        {chosen && <span className="hint">chosen</span>}
        <span className="score">{choice.score.toFixed(2)}</span>
      </div>
      <div className="meter-track" aria-hidden="true">
        <span style={{ width: `${scoreMax > 0 ? Math.max(0, (choice.score / scoreMax) * 100) : 0}%` }} />
      </div>
      <ul className="reasons">
        {choice.reasons.map((reason) => (
          <ReasonLine key={reason} reason={reason} />
        ))}
      </ul>
    </li>
  )
}

function ReasonLine({ reason }: { reason: string }) {
  const { code, text, weight } = parseReason(reason)
  return (
    <li>
      {code !== '' && <code>{code}</code>} <span>{text}</span>
      {weight !== '' && <span className="weight">{weight}</span>}
    </li>
  )
}
