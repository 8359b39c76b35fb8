import { expect, it } from 'vitest'
import { staleAfter } from './stale'
import type { Collection } from './types'

it('makes views that embed an instance stale with it', () => {
  expect(staleAfter('instances')).toEqual(expect.arrayContaining(['instances', 'deployments', 'hosts', 'boot']))
  expect(staleAfter('decisions')).toEqual(expect.arrayContaining(['decisions', 'instances']))
})

it('shows a new policy and its decisions at once', () => {
  expect(staleAfter('policies')).toEqual(expect.arrayContaining(['policies', 'decisions']))
})

it('takes a collection it does not know for none', () => {
  expect(staleAfter('checkpoints' as Collection)).toEqual([])
})
