import type {
  ApplianceView,
  AuditEntry,
  BootView,
  DecisionView,
  DeploymentView,
  Event,
  HostService,
  HostView,
  InstanceView,
  PortView,
  StreamView,
  TopologyLink,
  TopologyView,
} from '../src/api/types'
import { Policies } from './policies.ts'
import { bootAfter, readyMs, reportAfter, stateAfter } from './boot.ts'

/**
 * Everything one signed-in person sees. Each token is a world of its own, so that tests do not meet. The first word
 * after `mock-` names the scenario: `mock-ready-ANYTHING`, `mock-empty-ANYTHING`, ...
 */
export type Scenario =
  /** `office/workspace` starts to boot when first looked at. */
  | 'live'
  /** Everything has long been ready. */
  | 'ready'
  /** A new installation. */
  | 'empty'
  /** `/v1/hosts` is refused with 503. */
  | 'hostless'
  /** The token may only read. */
  | 'read'
  /** The token is revoked after a second. */
  | 'revoked'
  /** From one second to four no request is answered. */
  | 'outage'

const SCENARIOS: readonly string[] = ['live', 'ready', 'empty', 'hostless', 'read', 'revoked', 'outage'] satisfies Scenario[]

const HOUR_MS = 3_600_000
const GIB = 1024 ** 3
const MIB = 1024 ** 2
const IMAGE = { gateway: `sha256:${'a7'.repeat(32)}`, workspace: `sha256:${'c1'.repeat(32)}`, ids: `sha256:${'5e'.repeat(32)}` }

export class World {
  readonly bornMs = Date.now()
  readonly policies: Policies
  private readonly services = new Map<string, HostService>()
  private workspaceStartedMs: number
  private renewals = 0

  private constructor(readonly scenario: Scenario) {
    this.policies = new Policies(this.bornMs)
    this.workspaceStartedMs = scenario === 'live' || scenario === 'read' ? 0 : this.bornMs - 2 * HOUR_MS
  }

  /** None if the token is not one of ours. */
  static of(token: string): World | null {
    const scenario = /^mock-([a-z]+)(-|$)/.exec(token)?.[1]
    return scenario !== undefined && SCENARIOS.includes(scenario) ? new World(scenario as Scenario) : null
  }

  ageMs() {
    return Date.now() - this.bornMs
  }

  revision() {
    return 140 + this.renewals * 3
  }

  renew() {
    this.workspaceStartedMs = Date.now()
    this.renewals += 1
  }

  private elapsedMs() {
    this.workspaceStartedMs ||= Date.now()
    return Date.now() - this.workspaceStartedMs
  }

  boot(id: string): BootView | null {
    const elapsed = id === 'office/workspace' ? this.elapsedMs() : 2 * HOUR_MS
    const instance = this.instances().find((candidate) => candidate.id === id)
    if (!instance) return null
    if (instance.state === 'failed' || instance.state === 'pending') {
      return { state: instance.state, started_ms: null, ready_ms: null, image: null, log_tail: '' }
    }
    return bootAfter(Date.now() - elapsed, elapsed)
  }

  stream(id: string): StreamView | null {
    const instance = this.instances().find((candidate) => candidate.id === id)
    if (!instance || instance.host === null) return null
    const elapsed = id === 'office/workspace' ? this.elapsedMs() : 2 * HOUR_MS
    const report = reportAfter(readerOf(instance), instance.image, Date.now() - elapsed, elapsed)
    return { instance: id, host: instance.host, report }
  }

  deployments(): DeploymentView[] {
    if (this.scenario === 'empty') return []
    const instances = this.instances()
    const of = (name: string) => instances.filter((instance) => instance.id.startsWith(`${name}/`))
    const office = of('office')
    return [
      {
        name: 'lab',
        revision: 61,
        spec: { bundle: 'lab', site: 'zurich' },
        ready: false,
        instances: of('lab'),
        problems: ['lab/watcher: no host has 64 GiB of memory free. Add a host or ask for less memory in the bundle.'],
      },
      {
        name: 'office',
        revision: 118,
        spec: { bundle: 'office', user: 'ana', site: 'zurich' },
        ready: office.every((instance) => instance.state === 'ready'),
        instances: office,
        problems: [],
      },
    ]
  }

  instances(): InstanceView[] {
    if (this.scenario === 'empty') return []
    const elapsed = this.elapsedMs()
    const started = Date.now() - elapsed
    const state = stateAfter(elapsed)
    return [
      instance('lab/watcher', 'ids', {
        state: 'pending',
        reason: 'No host has 64 GiB of memory free.',
        memory: '64GiB',
        ports: [port('sniff', 'inside', null, '02:5e:10:00:00:21')],
      }),
      instance('office/gateway', 'gateway', {
        host: 'h1',
        state: 'ready',
        started_ms: this.bornMs - 2 * HOUR_MS,
        ready_ms: this.bornMs - 2 * HOUR_MS + 8_400,
        ports: [
          port('wan', 'outside', '10.88.0.100', '02:a7:10:00:00:01'),
          port('lan', 'inside', '10.20.0.1', '02:a7:10:00:00:02'),
        ],
        placement: this.decision('office/gateway'),
      }),
      instance('office/workspace', 'workspace', {
        host: 'h2',
        incarnation: `6f1c2a34-0d1e-4b7a-9c55-00000000000${this.renewals}`,
        state,
        started_ms: state === 'preparing' ? null : started,
        ready_ms: state === 'ready' ? readyMs(started) : null,
        ports: [port('eth0', 'inside', '10.20.0.10', '02:c1:10:00:00:11')],
        volumes: ['home'],
        placement: this.decision('office/workspace'),
      }),
    ]
  }

  topology(name: string): TopologyView | null {
    if (name !== 'office' || this.scenario === 'empty') return null
    const [gateway, workspace] = ['office/gateway', 'office/workspace'].map((id) => this.instances().find((each) => each.id === id))
    const member = (each: InstanceView | undefined, gateway: boolean) => ({
      name: each?.id.split('/')[1] ?? '',
      appliance: each?.appliance ?? '',
      host: each?.host ?? null,
      online: true,
      state: each?.state ?? ('pending' as const),
      gateway,
      interposed: false,
    })
    const via = { ...member(gateway, false), name: 'via-workspace-eth0-1', host: 'h2', interposed: true }
    const moved = Math.floor(this.ageMs() / 1000) * 250_000
    const link = (member: string, port: string, network: string, differs: Partial<TopologyLink>): TopologyLink => ({
      member,
      port,
      network,
      addresses: [],
      held: false,
      ready: true,
      carrier: true,
      from_guest: { frames: 900, bytes: 60_000 + moved },
      to_guest: { frames: 700, bytes: 50_000 + moved },
      dropped_frames: 0,
      ...differs,
    })
    return {
      deployment: name,
      at_ms: Date.now(),
      members: [member(gateway, true), via, member(workspace, false)],
      networks: [
        { name: 'inside', kind: 'private', subnets: ['10.20.0.0/24'], ready: true, hosts: ['h1', 'h2'] },
        { name: 'outside', kind: 'site', subnets: [], ready: false, hosts: ['h1'] },
        { name: 'via-workspace-eth0-1', kind: 'wire', subnets: [], ready: true, hosts: ['h2'] },
      ],
      links: [
        link('gateway', 'wan', 'outside', { addresses: ['10.88.0.100'], ready: false, dropped_frames: 12 }),
        link('gateway', 'lan', 'inside', { addresses: ['10.20.0.1'] }),
        link('via-workspace-eth0-1', 'wan', 'inside', { addresses: ['10.20.0.10'] }),
        link('via-workspace-eth0-1', 'lan', 'via-workspace-eth0-1', {}),
        link('workspace', 'eth0', 'via-workspace-eth0-1', {}),
      ],
      interpositions: [
        { port: 'workspace/eth0', with: 'acme/gateway', instance: 'office/via-workspace-eth0-1', phase: 'spliced', passes: true },
      ],
      mirrors: [],
    }
  }

  decisions(id: string): DecisionView[] {
    if (id === 'lab/watcher') return [this.deferral(id)]
    return this.instances().some((candidate) => candidate.id === id) ? [this.decision(id)] : []
  }

  private decision(id: string): DecisionView {
    const chosen = id === 'office/gateway' ? ['h1', 'h2'] : ['h2', 'h1']
    return {
      ...decisionBase(id, this.bornMs - 2 * HOUR_MS),
      verdict: 'place',
      host: chosen[0] ?? null,
      choices: [
        {
          host: chosen[0] ?? '',
          score: 1.62,
          reasons: ['memory-free: 3.1 of 4 GiB are free (0.78)', 'image-here: 96 of 352 pieces are here (0.54)', 'spread: no other member of office is here (0.3)'],
        },
        { host: chosen[1] ?? '', score: 0.71, reasons: ['memory-free: 2.8 of 4 GiB are free (0.71)'] },
      ],
      notes: ['h3: it is offline'],
    }
  }

  private deferral(id: string): DecisionView {
    return {
      ...decisionBase(id, this.bornMs - HOUR_MS),
      verdict: 'defer',
      host: null,
      choices: [],
      notes: ['h1: 64 GiB of memory asked for, 3.1 GiB are free', 'h2: 64 GiB of memory asked for, 2.8 GiB are free', 'h3: it is offline'],
    }
  }

  hosts(): HostView[] {
    if (this.scenario === 'empty') return []
    const on = (name: string) => this.instances().filter((candidate) => candidate.host === name)
    const all = [host('h1', '10.77.0.11', 3.1, on('h1')), host('h2', '10.77.0.12', 2.8, on('h2')), offlineHost(this.bornMs), origin()]
    return all.map((each) => ({ ...each, service: this.services.get(each.name) ?? each.service }))
  }

  setService(name: string, service: HostService) {
    this.services.set(name, service)
  }

  appliances(): ApplianceView[] {
    if (this.scenario === 'empty') return []
    return [
      appliance('acme/gateway', 'Router, firewall, DHCP and DNS for an office', IMAGE.gateway, ['wan', 'lan'], [], this.bornMs),
      appliance('acme/workspace', 'Desktop with a web server', IMAGE.workspace, ['eth0'], ['home'], this.bornMs),
    ]
  }

  events(): Event[] {
    if (this.scenario === 'empty') return []
    const boot = bootAfter(Date.now() - this.elapsedMs(), this.elapsedMs())
    const events: Event[] = [
      event(101, this.bornMs - 2 * HOUR_MS - 900, 'deployment/office', 'deployment-created', 'office runs bundle office for ana.'),
      event(104, this.bornMs - 2 * HOUR_MS, 'instance/office/gateway', 'instance-placed', 'Placed on h1 by balanced.'),
      event(107, this.bornMs - 2 * HOUR_MS + 8_400, 'instance/office/gateway', 'instance-ready', 'Ready after 8.4 s.'),
      event(111, this.bornMs - HOUR_MS, 'host/h3', 'host-offline', 'h3 has not been heard for 5 s.'),
    ]
    if (boot.started_ms !== null) {
      events.push(event(130, boot.started_ms, 'instance/office/workspace', 'instance-started', 'Started on h2.'))
    }
    if (boot.ready_ms !== null) {
      events.push(event(133, boot.ready_ms, 'instance/office/workspace', 'instance-ready', 'Ready after 5.0 s.'))
    }
    return events
  }

  audit(): AuditEntry[] {
    if (this.scenario === 'empty') return []
    const line = (number: number, who: string, action: string, object: string, previous: string): AuditEntry => ({
      number,
      at_ms: this.bornMs - 3 * HOUR_MS + number * 60_000,
      who,
      action,
      object,
      revision: 80 + number * 4,
      previous: `sha256:${previous.repeat(32)}`,
    })
    return [
      line(1, 'controller', 'token-create', 'token/admin', '00'),
      line(2, 'host:h1', 'join', 'host/h1', '3b'),
      line(3, 'token:t-01', 'publish', 'appliance/acme/workspace', '9d'),
      line(4, 'token:t-01', 'apply', 'deployment/office', 'e4'),
    ]
  }
}

function instance(id: string, kind: keyof typeof IMAGE, differs: Partial<InstanceView>): InstanceView {
  return {
    id,
    incarnation: `6f1c2a34-0d1e-4b7a-9c55-${kind.length}00000000000`.slice(0, 36),
    appliance: `acme/${kind}`,
    version: kind === 'gateway' ? '1.2.0' : '2.0.1',
    image: IMAGE[kind],
    host: null,
    state: 'pending',
    reason: null,
    started_ms: null,
    ready_ms: null,
    starts: 1,
    ports: [],
    volumes: [],
    placement: null,
    vcpus: 1,
    memory: '256MiB',
    ...differs,
  }
}

function port(name: string, network: string, address: string | null, mac: string): PortView {
  return { name, network, address, mac, tap: `ct${mac.slice(-2)}${name}` }
}

function decisionBase(id: string, atMs: number) {
  return {
    id: 17,
    at_ms: atMs,
    kind: 'placement' as const,
    subject: `instance/${id}`,
    outcome: id === 'lab/watcher' ? 'defer' : 'place on h2',
    instance: id,
    policy: 'balanced',
    component: 'balanced 0.1.0',
    digest: `sha256:${'4f'.repeat(32)}`,
    input: `sha256:${'d2'.repeat(32)}`,
    took_us: 412,
  }
}

function host(name: string, address: string, memoryFreeGib: number, instances: InstanceView[]): HostView {
  return {
    name,
    site: 'zurich',
    role: 'host',
    online: true,
    seen_ms: Date.now() - 400,
    service: 'in_service',
    ...(name === 'h1'
      ? {
          labels: { rack: 'a3' },
          attestation: { note: 'Firmware compared with the vendor’s list', who: 'token:t-01', at_ms: Date.now() - HOUR_MS },
        }
      : {}),
    facts: {
      agent_version: '0.1.0',
      libvirt_version: '9.0.0',
      qemu_version: '7.2.13',
      kernel: '6.1.0-28-amd64',
      accelerator: name === 'h1' ? 'kvm' : 'tcg',
      ...(name === 'h1' ? {} : { accelerator_reason: 'The probe guest did not start with /dev/kvm within 10 s.' }),
      cpu_total_milli: 2000,
      memory_total_bytes: 4 * GIB,
      disk_total_bytes: 40 * GIB,
      underlay_address: address,
    },
    status: {
      generation: 9,
      converged: instances.every((candidate) => candidate.state === 'ready'),
      problems: [],
      memory_free_bytes: memoryFreeGib * GIB,
      disk_free_bytes: 31.5 * GIB,
      load: 0.42,
      instances: instances.map((candidate) => ({
        id: candidate.id,
        incarnation: candidate.incarnation,
        state: candidate.state,
        starts: candidate.starts,
      })),
      images: Object.fromEntries(instances.map((candidate) => [candidate.image, imageOf(candidate)])),
      networks: networksOf(instances),
      streamer_up: true,
    },
  }
}

/** By this name the streamer knows one start of an instance. */
function readerOf(instance: InstanceView) {
  return `${instance.id}:${instance.incarnation.slice(0, 8)}.${instance.starts}`
}

function imageOf(instance: InstanceView) {
  const image = bootAfter(0, HOUR_MS).image
  if (!image) throw new Error('a finished boot has an image')
  const { piece_map: _, ...rest } = image
  const stalls = { count: 4, total_ms: 500, longest_ms: 310, waiting: 0 }
  const reader = { name: readerOf(instance), profile: 'boot', score: 0.93, profile_missing: 0, stalls }
  return { ...rest, export: instance.image.slice(7), readers: [reader] }
}

function networksOf(instances: InstanceView[]) {
  const none = { frames: 0, bytes: 0 }
  const ports = instances.flatMap((candidate) =>
    candidate.ports.map((each) => ({
      id: `${candidate.id}/${each.name}`,
      network: `${candidate.id.split('/')[0]}/${each.network}`,
      tap: each.tap,
      ready: true,
      carrier: candidate.state === 'ready',
      from_guest: { frames: 1_841, bytes: 188 * 1024 },
      to_guest: { frames: 2_210, bytes: 1.4 * MIB },
      dropped_spoofed: none,
      dropped_from_guest: { frames: 3, bytes: 210 },
      dropped_to_guest: none,
    })),
  )
  const networks = [...new Set(ports.map((each) => each.network))].map((id) => ({
    id,
    up: true,
    ports: ports.filter((each) => each.network === id),
  }))
  return { generation: 9, converged: true, took_ms: 38, steps: 12, failures: [], conflicts: [], networks }
}

function offlineHost(bornMs: number): HostView {
  return { name: 'h3', site: 'zurich', role: 'host', online: false, seen_ms: bornMs - HOUR_MS, service: 'draining', facts: null, status: null }
}

function origin(): HostView {
  return { name: 'origin', site: 'zurich', role: 'origin', online: true, seen_ms: Date.now() - 300, service: 'in_service', facts: null, status: null }
}

function appliance(
  name: string,
  summary: string,
  image: string,
  ports: string[],
  volumes: string[],
  bornMs: number,
): ApplianceView {
  const version = (number: string, hoursAgo: number) => ({
    version: number,
    published_ms: bornMs - hoursAgo * HOUR_MS,
    image,
    size_bytes: 128 * MIB,
    spec: { summary, hardware: { vcpus: 1, memory: '256MiB' }, disks: { system: { file: 'system.raw' } }, ports, volumes },
  })
  return { name, channels: { stable: '1.2.0', beta: '1.3.0-rc.1' }, versions: [version('1.2.0', 40), version('1.3.0-rc.1', 4)] }
}

function event(revision: number, at_ms: number, object: string, reason: string, message: string): Event {
  return { revision, at_ms, object, reason, message }
}
