import { useQuery } from '@tanstack/react-query'
import type { ApplianceView, CatalogueVersion } from '../api/types'
import { useApi } from '../app/api'
import { Loaded } from '../app/Loaded'
import { Card } from '../ui/Card'
import { Empty } from '../ui/Empty'
import { formatBytes, formatByteSize, shortDigest } from '../ui/format'
import { None } from '../ui/None'
import { PageHead } from '../ui/PageHead'
import { type Column, Table } from '../ui/Table'
import { Time } from '../ui/Time'

export function AppliancesPage() {
  const { queries } = useApi()
  const appliances = useQuery(queries.appliances)
  return (
    <>
      <PageHead title="Appliances" />
      <Loaded query={appliances}>
        {(list) =>
          list.length === 0 ? (
            <Empty title="No appliance has been published yet.">
              A maker publishes one with <code>collective appliance publish DIR</code>.
            </Empty>
          ) : (
            <div className="stack">
              {list.map((appliance) => (
                <Appliance key={appliance.name} appliance={appliance} />
              ))}
            </div>
          )
        }
      </Loaded>
    </>
  )
}

function Appliance({ appliance }: { appliance: ApplianceView }) {
  const newest = appliance.versions.at(-1)
  return (
    <Card title={appliance.name}>
      {newest && newest.spec.summary !== '' && <p className="muted">{newest.spec.summary}</p>}
      <Table
        label={`Versions of ${appliance.name}`}
        columns={columnsOf(appliance.channels)}
        rows={appliance.versions.toReversed()}
        rowKey={({ version }) => version}
      />
    </Card>
  )
}

function columnsOf(channels: Record<string, string>): readonly Column<CatalogueVersion>[] {
  return [
    { title: 'Version', cell: ({ version }) => <strong>{version}</strong> },
    { title: 'Channels', cell: ({ version }) => <Channels names={namesFor(channels, version)} /> },
    { title: 'Published', cell: ({ published_ms }) => <Time atMs={published_ms} /> },
    { title: 'Size', align: 'right', cell: ({ size_bytes }) => formatBytes(size_bytes) },
    {
      title: 'Hardware',
      cell: ({ spec: { hardware } }) =>
        `${hardware.vcpus} ${hardware.vcpus === 1 ? 'processor' : 'processors'}, ${formatByteSize(hardware.memory)}`,
    },
    { title: 'Ports', cell: ({ spec }) => (spec.ports.length === 0 ? <None /> : spec.ports.join(', ')) },
    { title: 'Volumes', cell: ({ spec }) => (spec.volumes.length === 0 ? <None /> : spec.volumes.join(', ')) },
    { title: 'Image', cell: ({ image }) => <code title={image}>{shortDigest(image)}</code> },
  ]
}

function namesFor(channels: Record<string, string>, version: string): string[] {
  return Object.entries(channels).flatMap(([name, pointed]) => (pointed === version ? [name] : []))
}

function Channels({ names }: { names: string[] }) {
  if (names.length === 0) return <None />
  return (
    <ul className="chips">
      {names.map((name) => (
        <li key={name} className="chip">
          {name}
        </li>
      ))}
    </ul>
  )
}
