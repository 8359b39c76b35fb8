import { expect, it } from 'vitest'
import { objectPath, paths } from './paths'

it('spells every address once', () => {
  expect(Object.fromEntries(Object.entries(paths).map(([name, path]) => [name, path('office/gateway')]))).toEqual({
    deployments: '/deployments',
    deployment: '/deployments/office%2Fgateway',
    topology: '/deployments/office%2Fgateway/topology',
    instance: '/instances/office/gateway',
    console: '/instances/office/gateway/console',
    hosts: '/hosts',
    host: '/hosts/office%2Fgateway',
    streams: '/streams',
    appliances: '/appliances',
    policies: '/policies',
    policy: '/policies/office%2Fgateway',
    events: '/events?filter=office%2Fgateway',
    audit: '/audit',
  })
})

it('leads from an event to its object', () => {
  expect(objectPath('host/h1')).toBe('/hosts/h1')
  expect(objectPath('instance/office/gateway')).toBe('/instances/office/gateway')
  expect(objectPath('deployment/office')).toBe('/deployments/office')
  expect(objectPath('policy/balanced')).toBe('/policies/balanced')
  expect(objectPath('instance/office')).toBeNull()
  expect(objectPath('token/abc')).toBeNull()
  expect(objectPath('controller')).toBeNull()
})
