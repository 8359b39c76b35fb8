import { describe, expect, it } from 'vitest'
import { formatBytes, formatByteSize, formatDuration, formatShare, parseByteSize, shortDigest } from './format'

const plain = (text: string) => text.replaceAll('\u00a0', ' ')

describe('formatBytes', () => {
  it.each([
    [0, '0 B'],
    [1023, '1023 B'],
    [1024, '1 KiB'],
    [1536, '1.5 KiB'],
    [256 * 1024, '256 KiB'],
    [1024 * 1024 - 1, '1 MiB'],
    [38.44 * 1024 ** 2, '38.4 MiB'],
    [100 * 1024 ** 3, '100 GiB'],
    [5000 * 1024 ** 5, '5000 PiB'],
  ])('writes %d as %s', (bytes, text) => expect(plain(formatBytes(bytes))).toBe(text))

  it('never shows 1024 of a unit that has a larger one', () => {
    for (let exponent = 0; exponent < 50; exponent++) {
      for (const delta of [-1, 0, 1]) expect(formatBytes(2 ** exponent + delta)).not.toMatch(/^1024/)
    }
  })
})

describe('parseByteSize', () => {
  it('reads what the API writes', () => {
    expect(parseByteSize('512MiB')).toBe(512 * 1024 ** 2)
    expect(parseByteSize('10GiB')).toBe(10 * 1024 ** 3)
    expect(parseByteSize('4096')).toBe(4096)
    expect(plain(formatByteSize('512MiB'))).toBe('512 MiB')
  })
  it('leaves what is no size as it is', () => {
    expect(parseByteSize('10 apples')).toBeNull()
    expect(formatByteSize('?')).toBe('?')
  })
})

describe('formatDuration', () => {
  it.each([
    [-5, '0 ms'],
    [0.412, '412 µs'],
    [0.9999, '1 ms'],
    [340, '340 ms'],
    [999.6, '1.0 s'],
    [14_230, '14.2 s'],
    [59_960, '1 min 00 s'],
    [125_000, '2 min 05 s'],
    [3_600_000, '1 h 00 min'],
    [11_520_000, '3 h 12 min'],
    [4.25 * 86_400_000, '4 d 06 h'],
  ])('writes %d ms as %s', (ms, text) => expect(plain(formatDuration(ms))).toBe(text))
})

describe('formatShare', () => {
  it('says nothing and everything only when it is so', () => {
    expect(plain(formatShare(0, 10))).toBe('0 %')
    expect(plain(formatShare(1, 1_000_000))).toBe('< 0.1 %')
    expect(plain(formatShare(999_999, 1_000_000))).toBe('99.9 %')
    expect(plain(formatShare(10, 10))).toBe('100 %')
    expect(plain(formatShare(3, 40))).toBe('7.5 %')
    expect(plain(formatShare(1, 0))).toBe('0 %')
  })
})

it('shortens a digest to 12 digits', () => {
  expect(shortDigest(`sha256:${'ab'.repeat(32)}`)).toBe('abababababab')
})
