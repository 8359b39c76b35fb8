import { expect, it } from 'vitest'
import { parseReason } from './reason'

it('takes a reason apart', () => {
  expect(parseReason('memory-free: 3 of 4 GiB are free (0.75)')).toEqual({
    code: 'memory-free',
    text: '3 of 4 GiB are free',
    weight: '0.75',
  })
  expect(parseReason('image-here: 12 (of 40) pieces (1.2)')).toMatchObject({ text: '12 (of 40) pieces', weight: '1.2' })
  expect(parseReason('no-weight: as it is')).toMatchObject({ code: 'no-weight', text: 'as it is', weight: '' })
})

it('shows a reason of another form as it is', () => {
  expect(parseReason('just words')).toEqual({ code: '', text: 'just words', weight: '' })
})
