import { useQuery } from '@tanstack/react-query'
import { Link } from 'wouter'
import type { ApplianceView, HostView, ImageStatus, Reader } from '../api/types'
import { useApi } from '../app/api'
import { Loaded } from '../app/Loaded'
import { paths } from '../app/paths'
import { Badge } from '../ui/Badge'
import { Empty } from '../ui/Empty'
import { formatCount, formatRate, formatShare, shortDigest } from '../ui/format'
import { None } from '../ui/None'
import { PageHead } from '../ui/PageHead'
import { type Column, Table } from '../ui/Table'

interface Stream {
  host: HostView
  digest: string
  /** `publisher/appliance version`, if it is published. */
  version: string | undefined
  image: ImageStatus
}

/** Every image on every host, as it arrives. */
export function StreamsPage() {
  const { queries } = useApi()
  const hosts = useQuery(queries.hosts)
  const appliances = useQuery(queries.appliances)
  return (
    <>
      <PageHead title="Streams" />
      <Loaded query={hosts}>
        {(list) => {
          const streams = streamsOf(list, appliances.data ?? [])
          return streams.length === 0 ? (
            <Empty title="No host has an image yet.">Images come to hosts with the first instance that stands on them.</Empty>
          ) : (
            <div className="card flush">
              <Table label="Streams" columns={COLUMNS} rows={streams} rowKey={({ host, digest }) => `${host.name}/${digest}`} />
            </div>
          )
        }}
      </Loaded>
    </>
  )
}

function streamsOf(hosts: readonly HostView[], appliances: readonly ApplianceView[]): Stream[] {
  const versions = new Map(
    appliances.flatMap(({ name, versions: all }) => all.map(({ image, version }) => [image, `${name} ${version}`] as const)),
  )
  return hosts.flatMap((host) =>
    Object.entries(host.status?.images ?? {}).map(([digest, image]) => ({ host, digest, version: versions.get(digest), image })),
  )
}

const COLUMNS: readonly Column<Stream>[] = [
  { title: 'Host', cell: ({ host }) => <Link href={paths.host(host.name)}>{host.name}</Link> },
  { title: 'Image', cell: ({ version, digest }) => version ?? <code>{shortDigest(digest)}</code> },
  { title: 'Local', align: 'right', cell: ({ image }) => formatShare(image.pieces_local, image.pieces - image.pieces_zero) },
  { title: 'Down', align: 'right', cell: ({ image }) => <RateCell bytes={image.rates.down_bytes_per_s} /> },
  { title: 'Up', align: 'right', cell: ({ image }) => <RateCell bytes={image.rates.up_bytes_per_s} /> },
  { title: 'Peers', align: 'right', cell: ({ image }) => <Peers image={image} /> },
  { title: 'Waits', align: 'right', cell: ({ image }) => <WaitCount image={image} /> },
  { title: 'Readers', cell: ({ image }) => <Readers readers={image.readers} /> },
]

function RateCell({ bytes }: { bytes: number }) {
  return bytes === 0 ? <None /> : formatRate(bytes)
}

function Peers({ image: { peers } }: { image: ImageStatus }) {
  const near = peers.filter(({ same_site: near }) => near).length
  return (
    <>
      {formatCount(peers.length)} <span className="hint">{near} near</span>
    </>
  )
}

function WaitCount({ image: { stalls, trouble } }: { image: ImageStatus }) {
  if (trouble !== undefined) return <Badge tone="bad" title={trouble}>Trouble</Badge>
  return (
    <>
      {formatCount(stalls.count)} {stalls.waiting > 0 && <span className="hint">{stalls.waiting} now</span>}
    </>
  )
}

function Readers({ readers }: { readers: readonly Reader[] }) {
  if (readers.length === 0) return <None />
  return readers.map((reader) => {
    const id = reader.name.split(':')[0] ?? ''
    return (
      <p key={reader.name}>
        {id.includes('/') ? <Link href={paths.instance(id)}>{id}</Link> : reader.name}{' '}
        <span className="hint">
          {reader.profile ?? 'no profile'}
          {reader.score !== undefined && ` ${reader.score.toFixed(2)}`}
        </span>
      </p>
    )
  })
}
