import { expect, it } from 'vitest'
import type { HostView, InstanceState, InstanceView, PolicyView } from '../api/types'
import { cannotCordon, cannotOpenConsole, cannotPromote, cannotRenew, cannotRollBack } from './can'

const instance = (state: InstanceState, host: string | null = 'h1') => ({ state, host }) as InstanceView
const host = (online: boolean) => ({ name: 'h1', online }) as HostView

it('opens the console of what runs on a host that answers', () => {
  expect(cannotOpenConsole(instance('booting'), host(true))).toBeNull()
  expect(cannotOpenConsole(instance('ready'), undefined)).toBeNull()
})

it('says why there is no console', () => {
  expect(cannotOpenConsole(instance('ready'), host(false))).toBe('Its host h1 is offline.')
  expect(cannotOpenConsole(instance('pending', null), undefined)).toMatch('no host yet')
  for (const state of ['preparing', 'stopped', 'failed', 'removing'] as const) {
    expect(cannotOpenConsole(instance(state), host(true))).toBeTruthy()
  }
})

it('renews all but what has nothing or is on its way out', () => {
  expect(cannotRenew(instance('ready'))).toBeNull()
  expect(cannotRenew(instance('failed'))).toBeNull()
  expect(cannotRenew(instance('removing'))).toBeTruthy()
  expect(cannotRenew(instance('pending', null))).toBeTruthy()
})

it('changes who answers only where there is somebody else', () => {
  const alone = { earlier: [] as unknown } as PolicyView
  expect(cannotPromote(alone)).toMatch('no candidate')
  expect(cannotRollBack(alone)).toMatch('nothing to go back to')
  const release = {} as PolicyView
  expect(cannotPromote({ ...alone, candidate: release })).toBeNull()
  expect(cannotRollBack({ ...alone, earlier: [release] })).toBeNull()
})

it('cordons hosts, not origins', () => {
  expect(cannotCordon({ role: 'host' } as HostView)).toBeNull()
  expect(cannotCordon({ role: 'origin' } as HostView)).toBeTruthy()
})
