import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import type { Duplex } from 'node:stream'
import type { Connect, Plugin } from 'vite'
import { WebSocketServer, type WebSocket } from 'ws'
import type { Problem } from '../src/api/types'
import { World } from './world.ts'

/** What the built dashboard must get along with; the console's terminal makes its own style elements. */
const CONTENT_SECURITY_POLICY =
  "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self'; " +
  "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

/** Answers `/v1` in `vite dev` and `vite preview` as a controller would. One world for each token. */
export function mockApi(): Plugin {
  const worlds = new Map<string, World>()
  const worldOf = (token: string) => {
    const world = worlds.get(token) ?? World.of(token)
    if (world) worlds.set(token, world)
    return world
  }
  const middleware: Connect.NextHandleFunction = (request, response, next) => {
    const url = new URL(request.url ?? '/', 'http://mock')
    if (!url.pathname.startsWith('/v1/')) return next()
    const world = worldOf(request.headers.authorization?.replace(/^Bearer /, '') ?? '')
    answer(url, request, response, world)
  }
  return {
    name: 'collective-mock-api',
    configureServer(server) {
      server.middlewares.use(middleware)
      if (server.httpServer) serveConsoles(server.httpServer as Server, worldOf)
    },
    configurePreviewServer(server) {
      server.middlewares.use((_request, response, next) => {
        response.setHeader('Content-Security-Policy', CONTENT_SECURITY_POLICY)
        next()
      })
      server.middlewares.use(middleware)
      serveConsoles(server.httpServer as Server, worldOf)
    },
  }
}

function answer(url: URL, request: IncomingMessage, response: ServerResponse, world: World | null) {
  if (!world || (world.scenario === 'revoked' && world.ageMs() > 1_000)) {
    return refuse(response, 401, { code: 'unauthenticated', message: 'This token is unknown, expired or revoked. Ask for a new one.' })
  }
  if (world.scenario === 'outage' && world.ageMs() > 1_000 && world.ageMs() < 4_000) {
    request.socket.destroy()
    return
  }
  if (world.scenario === 'hostless' && url.pathname === '/v1/hosts') {
    return refuse(response, 503, { code: 'unavailable', message: 'The store is being recovered. Try again in a few seconds.' })
  }
  if (request.method !== 'GET') return change(url, request, response, world)
  const [collection = '', ...rest] = url.pathname.slice('/v1/'.length).split('/')
  return get(collection, rest, url, response, world)
}

function get(collection: string, rest: string[], url: URL, response: ServerResponse, world: World) {
  const name = rest[0]
  const id = rest.slice(0, 2).join('/')
  const find = <T>(values: T[], is: (value: T) => boolean) => (name === undefined ? values : values.find(is))
  switch (collection) {
    case 'version':
      return reply(response, { version: '0.1.0', revision: world.revision(), tracker: 'https://mock/announce' })
    case 'deployments':
      if (rest[1] === 'topology') return reply(response, world.topology(name ?? '') ?? undefined)
      return reply(response, find(world.deployments(), (each) => each.name === name))
    case 'instances':
      if (rest[2] === 'stream') return reply(response, world.stream(id) ?? undefined)
      if (rest[2] === 'boot') return reply(response, world.boot(id) ?? undefined)
      return reply(response, find(world.instances(), (each) => each.id === id))
    case 'hosts':
      return reply(response, find(world.hosts(), (each) => each.name === name))
    case 'appliances':
      return reply(response, find(world.appliances(), (each) => each.name === id))
    case 'policies':
      if (rest[1] === 'shadow') return reply(response, world.policies.shadow(name ?? '', world.decisions('office/workspace')))
      if (world.scenario === 'empty') return reply(response, [])
      return reply(response, find(world.policies.all(), (each) => each.name === name))
    case 'policy-trust':
      return reply(response, world.scenario === 'empty' ? [] : world.policies.trust())
    case 'decisions':
      if (url.searchParams.get('policy') === 'balanced') return reply(response, world.decisions('office/workspace'))
      if (url.searchParams.has('policy')) return reply(response, [])
      return reply(response, world.decisions(url.searchParams.get('instance') ?? ''))
    case 'audit':
      return reply(response, world.audit())
    case 'events':
      response.setHeader('Content-Type', 'application/x-ndjson')
      response.end(world.events().map((each) => `${JSON.stringify(each)}\n`).join(''))
      return
    case 'watch':
      return watch(response, world)
    default:
      return reply(response, undefined)
  }
}

/** Says that the workspace changed whenever its state does, until the other end leaves. */
function watch(response: ServerResponse, world: World) {
  response.writeHead(200, { 'Content-Type': 'application/x-ndjson' })
  response.flushHeaders()
  const stateOf = () => world.instances().find((each) => each.id === 'office/workspace')?.state
  let last = stateOf()
  const timer = setInterval(() => {
    if (stateOf() === last) return
    last = stateOf()
    response.write(`${JSON.stringify({ revision: world.revision(), collection: 'instances', name: 'office/workspace' })}\n`)
  }, 50)
  response.on('close', () => clearInterval(timer))
}

/** Whatever is asked for is done, if the token may. */
function change(url: URL, request: IncomingMessage, response: ServerResponse, world: World) {
  if (world.scenario === 'read') {
    return refuse(response, 403, { code: 'forbidden', message: 'This token may only read. Use one of role admin.' })
  }
  const [collection, name = '', action = ''] = url.pathname.slice('/v1/'.length).split('/')
  if (collection === 'policies') {
    if (!world.policies.change(name, action)) return reply(response, undefined)
    return reply(response, world.policies.find(name))
  }
  if (collection === 'hosts' && action === 'service') {
    let body = ''
    request.on('data', (chunk) => (body += String(chunk)))
    request.on('end', () => {
      world.setService(name, JSON.parse(body).service)
      reply(response, world.hosts().find((each) => each.name === name))
    })
    return
  }
  return renew(url, response, world)
}

function renew(url: URL, response: ServerResponse, world: World) {
  if (url.pathname !== '/v1/instances/office/workspace') return reply(response, undefined)
  world.renew()
  response.writeHead(202).end()
}

function reply(response: ServerResponse, body: unknown) {
  if (body === undefined) return refuse(response, 404, { code: 'not-found', message: 'There is nothing of this name. Check the address.' })
  response.setHeader('Content-Type', 'application/json')
  response.end(JSON.stringify(body))
}

function refuse(response: ServerResponse, status: number, problem: Problem) {
  response.writeHead(status, { 'Content-Type': 'application/json' })
  response.end(JSON.stringify({ ...problem, request_id: 'r-0000' }))
}

function serveConsoles(server: Server, worldOf: (token: string) => World | null) {
  const sockets = new WebSocketServer({ noServer: true })
  server.on('upgrade', (request: IncomingMessage, socket: Duplex, head: Buffer) => {
    const url = new URL(request.url ?? '/', 'http://mock')
    if (!/^\/v1\/instances\/[^/]+\/[^/]+\/console$/.test(url.pathname)) return
    if (!worldOf(url.searchParams.get('token') ?? '')) {
      socket.end('HTTP/1.1 401 Unauthorized\r\nConnection: close\r\n\r\n')
      return
    }
    sockets.handleUpgrade(request, socket, head, login)
  })
}

/** A login prompt that answers each line with itself; `exit` ends it. */
function login(socket: WebSocket) {
  let line = ''
  const say = (text: string) => socket.send(Buffer.from(text))
  say('\r\nCollective workspace 2.0.1 ttyS0\r\n\r\nworkspace login: ')
  socket.on('message', (data: Buffer) => {
    for (const character of data.toString()) {
      if (character !== '\r') {
        line += character
        say(character)
      } else if (line === 'exit') {
        socket.close(1000, 'The console has ended.')
      } else {
        say(`\r\nyou said: ${line}\r\nworkspace login: `)
        line = ''
      }
    }
  })
}
