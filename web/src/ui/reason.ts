export interface Reason {
  code: string
  text: string
  weight: string
}

const REASON = /^([A-Za-z0-9_.-]+): (.*?)(?: \(([^()]*)\))?$/s

/** The parts of a policy's reason, written `code: text (weight)`. What has another form is all text. */
export function parseReason(line: string): Reason {
  const match = REASON.exec(line)
  return match
    ? { code: match[1] ?? '', text: match[2] ?? '', weight: match[3] ?? '' }
    : { code: '', text: line, weight: '' }
}
