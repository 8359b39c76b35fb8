import { describe, expect, it } from 'vitest'
import { readNdjson } from './ndjson'

function streamOf(chunks: Uint8Array[], onCancel?: () => void) {
  const left = [...chunks]
  return new ReadableStream<Uint8Array>({
    pull(controller) {
      const next = left.shift()
      if (next) controller.enqueue(next)
      else controller.close()
    },
    cancel: onCancel,
  })
}

async function all(stream: ReadableStream<Uint8Array>, lineLengthMax?: number) {
  const values: unknown[] = []
  for await (const value of readNdjson(stream, lineLengthMax)) values.push(value)
  return values
}

const bytes = (text: string) => new TextEncoder().encode(text)

describe('readNdjson', () => {
  it('gives the same values however the bytes are cut', async () => {
    const whole = bytes('{"a":"é€😀"}\n\n{"a":2}\r\n[3]\n')
    for (let size = 1; size <= whole.length; size++) {
      const chunks = []
      for (let at = 0; at < whole.length; at += size) chunks.push(whole.slice(at, at + size))
      expect(await all(streamOf(chunks))).toEqual([{ a: 'é€😀' }, { a: 2 }, [3]])
    }
  })

  it('takes a last line without a newline', async () => {
    expect(await all(streamOf([bytes('1\n2')]))).toEqual([1, 2])
  })

  it('yields a line before the stream ends', async () => {
    const stream = new ReadableStream<Uint8Array>({ start: (controller) => controller.enqueue(bytes('{"n":1}\n')) })
    const lines = readNdjson<{ n: number }>(stream)
    expect((await lines.next()).value).toEqual({ n: 1 })
    await lines.return()
  })

  it('refuses a line beyond the limit, ended or not', async () => {
    await expect(all(streamOf([bytes('"12345"\n')]), 7)).resolves.toEqual(['12345'])
    await expect(all(streamOf([bytes('"123456"\n')]), 7)).rejects.toThrow('more than 7 characters')
    await expect(all(streamOf([bytes('"123456')]), 6)).rejects.toThrow('more than 6 characters')
  })

  it('cancels the stream when its reader leaves or a line is no JSON', async () => {
    let cancelled = 0
    for await (const _ of readNdjson(streamOf([bytes('1\n'), bytes('2\n'), bytes('3\n')], () => cancelled++))) break
    await expect(all(streamOf([bytes('no\n'), bytes('2\n'), bytes('3\n')], () => cancelled++))).rejects.toThrow()
    expect(cancelled).toBe(2)
  })
})
