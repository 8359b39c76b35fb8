import { expect, it } from 'vitest'
import type { TopologyLink, TopologyView } from '../api/types'
import { drawingOf, ratesOf, stateOf } from './topology'

const counter = (bytes: number) => ({ frames: 1, bytes })

function link(member: string, network: string, differs: Partial<TopologyLink> = {}): TopologyLink {
  return {
    member,
    port: 'eth0',
    network,
    addresses: [],
    held: false,
    ready: true,
    carrier: true,
    from_guest: counter(0),
    to_guest: counter(0),
    dropped_frames: 0,
    ...differs,
  }
}

function view(at_ms: number, links: TopologyLink[]): TopologyView {
  const members = [...new Set(links.map(({ member }) => member))]
  const networks = [...new Set(links.map(({ network }) => network))]
  return {
    deployment: 'office',
    at_ms,
    members: members.map((name) => ({
      name,
      appliance: 'acme/any',
      host: 'h1',
      online: true,
      state: 'ready',
      gateway: false,
      interposed: false,
    })),
    networks: networks.map((name) => ({ name, kind: 'private', subnets: [], ready: true, hosts: [] })),
    links,
    interpositions: [],
    mirrors: [],
  }
}

it('draws every port as a line from its member to its network', () => {
  const drawn = drawingOf(view(0, [link('a', 'one'), link('a', 'two', { port: 'eth1' }), link('b', 'two')]))
  expect(drawn.lines.map(({ link }) => `${link.member} ${link.network}`)).toEqual(['a one', 'a two', 'b two'])
  const two = drawn.columns.find(({ name }) => name === 'two')
  for (const line of drawn.lines.filter(({ link }) => link.network === 'two')) {
    expect(line.x).toBe(two?.x)
    expect(line.y).toBeGreaterThanOrEqual(two?.top ?? Infinity)
    expect(line.y).toBeLessThanOrEqual(two?.bottom ?? -Infinity)
  }
  expect(new Set(drawn.lines.map(({ y }) => y)).size).toBe(3)
  expect(drawn.width).toBeGreaterThan(two?.x ?? 0)
})

it('draws a deployment without anything', () => {
  expect(drawingOf(view(0, []))).toMatchObject({ rows: [], columns: [], lines: [] })
})

it('tells rates between two pictures, and none of counters that began anew', () => {
  const before = view(1_000, [link('a', 'one', { from_guest: counter(100) }), link('b', 'one', { to_guest: counter(9) })])
  const now = view(3_000, [
    link('a', 'one', { from_guest: counter(300), to_guest: counter(200) }),
    link('b', 'one'),
    link('c', 'one', { from_guest: counter(5) }),
  ])
  expect([...ratesOf(before, now)]).toEqual([['a/eth0', 200]])
  expect(ratesOf(null, now).size).toBe(0)
  expect(ratesOf(now, now).size).toBe(0)
})

it('tells a held port from a closed one', () => {
  expect(stateOf(link('a', 'one'))).toBe('good')
  expect(stateOf(link('a', 'one', { ready: false }))).toBe('bad')
  expect(stateOf(link('a', 'one', { held: true, ready: false }))).toBe('wait')
})
