import { Link } from 'wouter'
import { paths } from '../app/paths'
import { Empty } from '../ui/Empty'
import { PageHead } from '../ui/PageHead'

export function NotFoundPage() {
  return (
    <>
      <PageHead title="No such page" />
      <Empty title="There is nothing at this address.">
        Go to the <Link href={paths.deployments()}>deployments</Link>.
      </Empty>
    </>
  )
}
