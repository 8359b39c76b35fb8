/**
 * What the REST API answers: a mirror of `controller/api` and `streamer/api`. Names and meaning are theirs; see there
 * for units and ranges. Times are milliseconds since 1970 UTC, sizes are bytes unless they are a `ByteSize`.
 */

/** `512MiB`, `10GiB`, or a plain number of bytes as text. */
export type ByteSize = string
/** `sha256:` and 64 hexadecimal digits. */
export type Digest = string
/** `deployment/member`. */
export type InstanceId = string
/** `publisher/appliance`. */
export type ApplianceRef = string

export type ProblemCode =
  | 'bad-request'
  | 'unauthenticated'
  | 'forbidden'
  | 'not-found'
  | 'conflict'
  | 'too-large'
  | 'invalid'
  | 'unavailable'
  | 'disk-full'
  | 'internal'

export interface Issue {
  line: number
  column: number
  field: string
  message: string
}

export interface Problem {
  code: ProblemCode
  message: string
  issues?: Issue[]
  request_id?: string
}

export type InstanceState = 'pending' | 'preparing' | 'booting' | 'ready' | 'stopped' | 'failed' | 'removing'

export interface DeploymentSpec {
  bundle: string
  user?: string
  site?: string
}

export interface Counter {
  frames: number
  bytes: number
}

export interface InterpositionView {
  /** `member/port`. */
  port: string
  with: ApplianceRef
  instance: InstanceId
  pair?: InstanceId
  phase: 'prepared' | 'spliced' | 'leaving'
  passes: boolean
  reason?: string
}

export interface TopologyMember {
  name: string
  appliance: ApplianceRef
  host: string | null
  online: boolean
  state: InstanceState
  gateway: boolean
  interposed: boolean
}

export interface TopologyNetwork {
  name: string
  kind: 'private' | 'site' | 'vlan' | 'nat' | 'routed' | 'wire'
  subnets: string[]
  ready: boolean
  hosts: string[]
  router?: { host: string; ready: boolean }
}

export interface TopologyLink {
  member: string
  port: string
  network: string
  addresses: string[]
  held: boolean
  ready: boolean
  carrier: boolean
  from_guest: Counter
  to_guest: Counter
  dropped_frames: number
}

export interface TopologyView {
  deployment: string
  at_ms: number
  members: TopologyMember[]
  networks: TopologyNetwork[]
  links: TopologyLink[]
  interpositions: InterpositionView[]
  mirrors: { id: string; host: string }[]
}

export interface DeploymentView {
  name: string
  revision: number
  spec: DeploymentSpec
  ready: boolean
  instances: InstanceView[]
  problems: string[]
}

export interface PortView {
  name: string
  network: string
  address: string | null
  addresses?: string[]
  watches?: string
  mac: string
  tap: string
}

export interface InstanceView {
  id: InstanceId
  incarnation: string
  appliance: ApplianceRef
  version: string
  image: Digest
  host: string | null
  state: InstanceState
  reason: string | null
  started_ms: number | null
  ready_ms: number | null
  starts: number
  ports: PortView[]
  volumes: string[]
  placement: DecisionView | null
  vcpus: number
  memory: ByteSize
}

export interface ChoiceView {
  host: string
  score: number
  /** `code: text (weight)`. */
  reasons: string[]
}

/** A placement policy's word, or that there is no answer; other kinds have words of their own. */
export type Verdict = 'place' | 'defer' | 'refuse' | 'error' | (string & {})

export type PolicyKind = 'placement' | 'update' | 'checkpoint' | 'introspection'

/** Who answered instead of the policy that was asked. */
export interface FallbackView {
  policy: string
  because: string
}

/** What a policy's candidate would have answered. */
export interface ShadowView {
  policy: string
  component: string
  digest: Digest
  differs: boolean
  outcome: string
  took_us: number
}

export interface DecisionView {
  id: number
  at_ms: number
  kind: PolicyKind
  /** `instance/office/gateway`, `rollout/...`, `deployment/office`. */
  subject: string
  /** The verdict with what it is about. */
  outcome: string
  instance?: InstanceId
  fallback?: FallbackView
  shadow?: ShadowView
  policy: string
  component: string
  digest: Digest
  input: Digest
  verdict: Verdict
  host: string | null
  choices: ChoiceView[]
  notes: string[]
  took_us: number
}

/** Why the controller lets a component run. */
export type PolicyOrigin = { by: 'unsigned' } | { by: 'built_in' } | { by: 'signed'; root: string; key: Digest }

export interface PolicyRelease {
  component: string
  version: string
  digest: Digest
  summary: string
  size_bytes: number
  origin: PolicyOrigin
  /** 0 if it was not written down. */
  since_ms: number
  settings?: Record<string, unknown>
}

export interface PolicyHealth {
  /** Since the controller started. */
  calls: number
  failures: number
  /** It is not asked until then. */
  open_until_ms?: number
  problem?: string
}

export interface PolicyView extends PolicyRelease {
  name: string
  kind: PolicyKind
  on_failure: 'refuse' | { fallback: string }
  /** Newest first. */
  earlier: PolicyRelease[]
  candidate?: PolicyRelease
  /** `bundle/office`, `policy/cautious`. */
  used_by: string[]
  health: PolicyHealth
}

export interface ShadowReport {
  policy: string
  candidate: PolicyRelease
  asked: number
  differed: number
  failed: number
  /** Newest first. */
  differences: DecisionView[]
}

export interface TrustRootView {
  name: string
  key: string
  key_id: Digest
  kinds: PolicyKind[]
  expires_ms?: number
  added_ms: number
  policies: string[]
}

export type HostService = 'in_service' | 'cordoned' | 'draining' | 'maintenance'

export interface AttestationView {
  note: string
  who: string
  at_ms: number
}

export interface HostFacts {
  agent_version: string
  libvirt_version: string
  qemu_version: string
  kernel: string
  accelerator: string
  accelerator_reason?: string
  cpu_total_milli: number
  memory_total_bytes: number
  disk_total_bytes: number
  underlay_address: string | null
  underlay_mtu?: number
}

export interface InstanceStatus {
  id: InstanceId
  incarnation: string
  state: InstanceState
  reason?: string
  started_ms?: number
  ready_ms?: number
  starts: number
}

export interface Counter {
  frames: number
  bytes: number
}

export interface NetworkPortStatus {
  id: string
  tap: string
  ready: boolean
  carrier: boolean
  from_guest: Counter
  to_guest: Counter
  dropped_spoofed: Counter
  dropped_from_guest: Counter
  dropped_to_guest: Counter
}

export interface NetworksStatus {
  generation: number
  converged: boolean
  took_ms: number
  steps: number
  failures: string[]
  conflicts: string[]
  networks: { id: string; up: boolean; ports: NetworkPortStatus[] }[]
}

export interface HostStatus {
  generation: number
  converged: boolean
  problems: string[]
  memory_free_bytes: number
  disk_free_bytes: number
  load: number
  instances: InstanceStatus[]
  images: Record<string, ImageStatus>
  networks?: NetworksStatus
  streamer_up: boolean
}

export interface HostView {
  name: string
  site: string
  role: string
  online: boolean
  seen_ms: number | null
  service: HostService
  labels?: Record<string, string>
  attestation?: AttestationView
  facts: HostFacts | null
  status: HostStatus | null
}

export interface ApplianceSpec {
  summary: string
  hardware: { vcpus: number; memory: ByteSize }
  disks: Record<string, { file: string }>
  ports: string[]
  volumes: string[]
}

export interface CatalogueVersion {
  version: string
  published_ms: number
  image: Digest
  size_bytes: number
  spec: ApplianceSpec
}

export interface ApplianceView {
  name: ApplianceRef
  channels: Record<string, string>
  /** Newest last. */
  versions: CatalogueVersion[]
}

export interface Event {
  revision: number
  at_ms: number
  /** `host/h1`, `instance/office/gateway`, `deployment/office`, ... */
  object: string
  reason: string
  message: string
}

export interface AuditEntry {
  number: number
  at_ms: number
  who: string
  action: string
  object: string
  revision: number
  previous: Digest
}

export type Collection =
  | 'bundles'
  | 'deployments'
  | 'instances'
  | 'hosts'
  | 'appliances'
  | 'policies'
  | 'volumes'
  | 'decisions'

export interface Change {
  revision: number
  collection: Collection
  name: string
}

export interface BytesBySource {
  origin: number
  peer: number
  web_seed: number
  zero: number
  cache: number
}

export interface Stalls {
  count: number
  total_ms: number
  longest_ms: number
  waiting: number
}

export interface Rates {
  down_bytes_per_s: number
  up_bytes_per_s: number
}

export interface Reader {
  /** `deployment/member:INCARNATION.START`. */
  name: string
  profile?: string
  /** 0 to 1. */
  score?: number
  profile_missing: number
  stalls: Stalls
}

export type StallCause = 'no_profile' | 'not_in_profile' | 'late'

export interface Stall {
  began_unix_ms: number
  at_ms: number
  reader: string
  piece: number
  waited_ms: number
  /** `origin`, `peer`, `web_seed`; absent while it waits. */
  source?: string
  from?: string
  profile?: string
  why: StallCause
}

export interface RunSummary {
  began_unix_ms: number
  connected: boolean
  whole: boolean
  profile?: string
  scores?: { profile: string; score: number }[]
  touched: number
}

export interface StreamReport {
  image: Digest
  started_ms?: number
  ready_ms?: number
  gone?: boolean
  run?: RunSummary
  /** Oldest first. */
  stalls: Stall[]
}

export interface StreamView {
  instance: InstanceId
  host: string
  report: StreamReport
}

export interface PeerStatus {
  address: string
  origin: boolean
  same_site: boolean
  rates: Rates
  pieces: number
  bytes_down: number
  bytes_up: number
}

export interface ImageStatus {
  export: string
  size_bytes: number
  piece_bytes: number
  pieces: number
  pieces_zero: number
  pieces_local: number
  bytes: BytesBySource
  bytes_uploaded: number
  bytes_poisoned: number
  stalls: Stalls
  rates: Rates
  readers: Reader[]
  peers: PeerStatus[]
  /** One character a piece: `z` zero, `h` here, `f` being fetched, `.` absent. */
  piece_map?: string
  trouble?: string
}

export interface BootView {
  state: InstanceState
  started_ms: number | null
  ready_ms: number | null
  image: ImageStatus | null
  log_tail: string
}

export interface VersionView {
  version: string
  revision: number
  tracker: string
}
