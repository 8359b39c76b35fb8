import type { BootView, ImageStatus, PeerStatus, Stalls } from '../api/types'
import { Card } from '../ui/Card'
import { Empty } from '../ui/Empty'
import { formatBytes, formatCount, formatDuration, formatRate, formatShare } from '../ui/format'
import { LogTail } from '../ui/LogTail'
import { None } from '../ui/None'
import { Notice } from '../ui/Notice'
import { PieceMap } from '../ui/PieceMap'
import { StackedBar } from '../ui/StackedBar'
import { type Column, Table } from '../ui/Table'
import { Tile } from '../ui/Tile'
import { Elapsed, Time } from '../ui/Time'

const TICK_MS = 100

/** A disk as its bytes arrive, and what the guest says meanwhile. */
export function Boot({ boot }: { boot: BootView }) {
  const { image } = boot
  return (
    <>
      <div className="tiles">
        <TimeTile boot={boot} />
        {image && <ImageTiles image={image} />}
      </div>
      <div className="columns wide-first">
        <Card title="Disk" aside={image && <span className="hint">{sizes(image)}</span>}>
          {image ? <Disk image={image} /> : <Empty title="Its image is not on a host yet." />}
        </Card>
        <Card title="Console log">
          {boot.log_tail === '' ? (
            <Empty title="The guest has not said anything yet." />
          ) : (
            <LogTail label="Console log" raw={boot.log_tail} />
          )}
        </Card>
      </div>
    </>
  )
}

function sizes(image: ImageStatus): string {
  return `${formatBytes(image.size_bytes)} in ${formatCount(image.pieces)} pieces of ${formatBytes(image.piece_bytes)}`
}

function TimeTile({ boot }: { boot: BootView }) {
  const { started_ms: started, ready_ms: ready } = boot
  if (started !== null && ready !== null) {
    return (
      <Tile label="Time to ready" value={formatDuration(ready - started)}>
        ready since <Time atMs={ready} />
      </Tile>
    )
  }
  if (started === null || (boot.state !== 'booting' && boot.state !== 'preparing')) {
    return <Tile label="Time to ready" value={<None />} />
  }
  return (
    <Tile label="Time to ready" value={<Elapsed sinceMs={started} everyMs={TICK_MS} />}>
      since it started, not ready yet
    </Tile>
  )
}

function ImageTiles({ image }: { image: ImageStatus }) {
  const fetched = image.bytes.origin + image.bytes.peer + image.bytes.web_seed
  const { stalls, peers } = image
  const origins = peers.filter(({ origin }) => origin).length
  const near = peers.filter(({ origin, same_site }) => same_site && !origin).length
  return (
    <>
      <Tile label="Fetched" value={formatShare(fetched, image.size_bytes)}>
        {formatBytes(fetched)} of {formatBytes(image.size_bytes)}
      </Tile>
      <Tile label="Stalls" value={<StallCount stalls={stalls} />}>
        longest {formatDuration(stalls.longest_ms)}, {formatDuration(stalls.total_ms)} in all
      </Tile>
      <Tile label="Rate" value={formatRate(image.rates.down_bytes_per_s)}>
        {formatRate(image.rates.up_bytes_per_s)} given to others
      </Tile>
      <Tile label="Peers" value={formatCount(peers.length)}>
        {origins} origin, {near} of this site, {peers.length - origins - near} far
      </Tile>
    </>
  )
}

function StallCount({ stalls }: { stalls: Stalls }) {
  return (
    <>
      {formatCount(stalls.count)} {stalls.waiting > 0 && <span className="hint">{stalls.waiting} waiting now</span>}
    </>
  )
}

function Disk({ image }: { image: ImageStatus }) {
  const { origin, peer, web_seed: webSeed, cache, zero } = image.bytes
  return (
    <div className="disk">
      {image.trouble !== undefined && <Notice tone="bad">{image.trouble}</Notice>}
      {image.bytes_poisoned > 0 && (
        <Notice tone="wait">{formatBytes(image.bytes_poisoned)} failed verification and were thrown away.</Notice>
      )}
      <StackedBar
        label="Where its bytes came from"
        total={image.size_bytes}
        segments={[
          { key: 'origin', label: 'Origin', bytes: origin },
          { key: 'peer', label: 'Peers', bytes: peer },
          ...(webSeed > 0 ? [{ key: 'web', label: 'Web seed', bytes: webSeed }] : []),
          { key: 'cache', label: 'Cache', bytes: cache },
          { key: 'zero', label: 'Zero', bytes: zero },
        ]}
      />
      {image.piece_map === undefined ? null : <PieceMap map={image.piece_map} />}
      {image.peers.length === 0 ? (
        <Empty title="No peer is connected." />
      ) : (
        <Table label="Peers" columns={PEER_COLUMNS} rows={image.peers} rowKey={({ address }) => address} />
      )}
    </div>
  )
}

const PEER_COLUMNS: readonly Column<PeerStatus>[] = [
  { title: 'Peer', cell: ({ address }) => <code>{address}</code> },
  { title: 'Is', cell: ({ origin, same_site }) => (origin ? 'origin' : same_site ? 'host of this site' : 'host elsewhere') },
  { title: 'Pieces', align: 'right', cell: ({ pieces }) => formatCount(pieces) },
  { title: 'Rate', align: 'right', cell: ({ rates }) => formatRate(rates.down_bytes_per_s) },
  { title: 'Fetched', align: 'right', cell: ({ bytes_down }) => formatBytes(bytes_down) },
  { title: 'Given', align: 'right', cell: ({ bytes_up }) => formatBytes(bytes_up) },
]
