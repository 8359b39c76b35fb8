/** Longest line taken from a stream, in characters: more is not one of ours. */
export const LINE_LENGTH_MAX = 1 << 20

/**
 * Yields the values of a newline-delimited JSON stream as they arrive. Blank lines (keep-alives) are skipped. Leaving
 * the loop, or an error in it, cancels the stream.
 */
export async function* readNdjson<T>(
  stream: ReadableStream<Uint8Array>,
  lineLengthMax = LINE_LENGTH_MAX,
): AsyncGenerator<T, void, undefined> {
  const reader = stream.getReader()
  const decoder = new TextDecoder()
  let rest = ''
  try {
    for (;;) {
      const { done, value } = await reader.read()
      rest += value ? decoder.decode(value, { stream: true }) : ''
      if (done) rest += decoder.decode()
      const lines = rest.split('\n')
      rest = done ? '' : (lines.pop() ?? '')
      for (const line of lines) {
        if (line.length > lineLengthMax) throw tooLong(lineLengthMax)
        if (line.trim() !== '') yield JSON.parse(line) as T
      }
      if (rest.length > lineLengthMax) throw tooLong(lineLengthMax)
      if (done) return
    }
  } finally {
    await reader.cancel().catch(() => undefined)
  }
}

function tooLong(lineLengthMax: number) {
  return new Error(`The controller sent a line of more than ${lineLengthMax} characters.`)
}
