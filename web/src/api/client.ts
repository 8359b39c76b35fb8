import { readNdjson } from './ndjson'
import type {
  ApplianceView,
  AuditEntry,
  BootView,
  Change,
  DecisionView,
  DeploymentView,
  Event,
  HostService,
  HostView,
  InstanceView,
  PolicyView,
  Problem,
  ShadowReport,
  StreamView,
  TopologyView,
  TrustRootView,
  VersionView,
} from './types'

/** The controller refused a request and said why. */
export class Refused extends Error {
  override readonly name = 'Refused'
  constructor(
    readonly status: number,
    readonly problem: Problem,
  ) {
    super(problem.message)
  }
}

/** No answer came at all. */
export class Unreachable extends Error {
  override readonly name = 'Unreachable'
  constructor(override readonly cause: unknown) {
    super('The controller does not answer. Check that it runs and that this machine reaches it; trying again.')
  }
}

/** What a client needs to know and to tell. */
export interface ClientOptions {
  token: string
  /** An answer came (true), or none did (false). */
  onReach?: (reached: boolean) => void
  /** The controller no longer takes the token. */
  onUnauthenticated?: (message: string) => void
}

/** Longest wait for an answer that is no stream. */
const ANSWER_MS_MAX = 10_000

interface RequestOptions {
  method?: 'GET' | 'DELETE' | 'POST' | 'PUT'
  /** Sent as JSON. */
  body?: unknown
  signal?: AbortSignal | undefined
  /** The answer has no end: there is no longest wait for it. */
  stream?: boolean
}

const policyPath = (name: string) => `/v1/policies/${encodeURIComponent(name)}`

const instancePath = (deployment: string, member: string) =>
  `/v1/instances/${encodeURIComponent(deployment)}/${encodeURIComponent(member)}`

/** The REST API, as far as pages use it. Every failure is a `Refused` or an `Unreachable`, or the caller's own abort. */
export class Client {
  constructor(private readonly options: ClientOptions) {}

  readonly version = (signal?: AbortSignal) => this.json<VersionView>('/v1/version', { signal })
  readonly deployments = (signal?: AbortSignal) => this.json<DeploymentView[]>('/v1/deployments', { signal })
  readonly deployment = (name: string, signal?: AbortSignal) =>
    this.json<DeploymentView>(`/v1/deployments/${encodeURIComponent(name)}`, { signal })
  readonly topology = (name: string, signal?: AbortSignal) =>
    this.json<TopologyView>(`/v1/deployments/${encodeURIComponent(name)}/topology`, { signal })
  readonly instance = (deployment: string, member: string, signal?: AbortSignal) =>
    this.json<InstanceView>(instancePath(deployment, member), { signal })
  readonly boot = (deployment: string, member: string, signal?: AbortSignal) =>
    this.json<BootView>(`${instancePath(deployment, member)}/boot`, { signal })
  readonly stream = (deployment: string, member: string, signal?: AbortSignal) =>
    this.json<StreamView>(`${instancePath(deployment, member)}/stream`, { signal })
  readonly hosts = (signal?: AbortSignal) => this.json<HostView[]>('/v1/hosts', { signal })
  readonly host = (name: string, signal?: AbortSignal) =>
    this.json<HostView>(`/v1/hosts/${encodeURIComponent(name)}`, { signal })
  readonly appliances = (signal?: AbortSignal) => this.json<ApplianceView[]>('/v1/appliances', { signal })
  readonly decisions = (instance: string, signal?: AbortSignal) =>
    this.json<DecisionView[]>(`/v1/decisions?instance=${encodeURIComponent(instance)}`, { signal })
  readonly decisionsOf = (policy: string, signal?: AbortSignal) =>
    this.json<DecisionView[]>(`/v1/decisions?policy=${encodeURIComponent(policy)}&limit=50`, { signal })
  readonly policies = (signal?: AbortSignal) => this.json<PolicyView[]>('/v1/policies', { signal })
  readonly policy = (name: string, signal?: AbortSignal) => this.json<PolicyView>(policyPath(name), { signal })
  readonly shadow = (name: string, signal?: AbortSignal) => this.json<ShadowReport>(`${policyPath(name)}/shadow`, { signal })
  readonly trust = (signal?: AbortSignal) => this.json<TrustRootView[]>('/v1/policy-trust', { signal })
  readonly audit = (signal?: AbortSignal) => this.json<AuditEntry[]>('/v1/audit', { signal })

  readonly events = async (signal?: AbortSignal): Promise<Event[]> => {
    const events: Event[] = []
    for await (const event of this.lines<Event>('/v1/events?since=0&follow=false', signal)) events.push(event)
    return events
  }

  readonly watch = (since: number, signal: AbortSignal) => this.lines<Change>(`/v1/watch?since=${since}`, signal)

  /** The candidate answers from now on. */
  readonly promote = (name: string) => this.json<PolicyView>(`${policyPath(name)}/promote`, { method: 'POST' })
  /** What answered before answers again. */
  readonly rollBack = (name: string) => this.json<PolicyView>(`${policyPath(name)}/rollback`, { method: 'POST' })
  /** Nobody is asked beside it any more. */
  readonly dropCandidate = async (name: string) => {
    await this.request(`${policyPath(name)}/candidate`, { method: 'DELETE' })
  }
  readonly setService = async (host: string, service: HostService) => {
    await this.request(`/v1/hosts/${encodeURIComponent(host)}/service`, { method: 'PUT', body: { service } })
  }

  /** Its overlay goes and the deployment makes the instance anew. */
  readonly renewInstance = async (deployment: string, member: string) => {
    await this.request(instancePath(deployment, member), { method: 'DELETE' })
  }

  /** A browser's WebSocket carries no header, so the token is in its address. */
  readonly consoleUrl = (deployment: string, member: string, origin: string) => {
    const url = new URL(`${instancePath(deployment, member)}/console`, origin)
    url.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:'
    url.searchParams.set('token', this.options.token)
    return url.href
  }

  private async json<T>(path: string, options: RequestOptions): Promise<T> {
    const response = await this.request(path, options)
    try {
      return (await response.json()) as T
    } catch (error) {
      throw this.failure(error, options.signal)
    }
  }

  private async *lines<T>(path: string, signal?: AbortSignal): AsyncGenerator<T, void, undefined> {
    const response = await this.request(path, { signal, stream: true })
    try {
      if (response.body) yield* readNdjson<T>(response.body)
    } catch (error) {
      throw this.failure(error, signal)
    }
  }

  private async request(path: string, options: RequestOptions): Promise<Response> {
    const { method = 'GET', signal, stream = false, body } = options
    const ends = [...(signal ? [signal] : []), ...(stream ? [] : [AbortSignal.timeout(ANSWER_MS_MAX)])]
    let response: Response
    try {
      response = await fetch(path, {
        method,
        signal: AbortSignal.any(ends),
        headers: {
          Authorization: `Bearer ${this.options.token}`,
          ...(body === undefined ? {} : { 'Content-Type': 'application/json' }),
        },
        body: body === undefined ? null : JSON.stringify(body),
        cache: 'no-store',
        credentials: 'omit',
      })
    } catch (error) {
      throw this.failure(error, signal)
    }
    this.options.onReach?.(true)
    if (response.ok) return response
    const problem = await readProblem(response)
    if (response.status === 401) this.options.onUnauthenticated?.(problem.message)
    throw new Refused(response.status, problem)
  }

  private failure(error: unknown, signal?: AbortSignal): unknown {
    if (signal?.aborted) return error
    this.options.onReach?.(false)
    return new Unreachable(error)
  }
}

async function readProblem(response: Response): Promise<Problem> {
  const body: unknown = await response.json().catch(() => null)
  if (typeof body === 'object' && body !== null && 'message' in body && typeof body.message === 'string') {
    return body as Problem
  }
  return { code: 'internal', message: `The controller answered ${response.status} without saying why.` }
}
