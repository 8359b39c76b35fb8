import { Redirect, Route, Switch } from 'wouter'
import { AppliancesPage } from '../pages/AppliancesPage'
import { AuditPage } from '../pages/AuditPage'
import { DeploymentPage } from '../pages/DeploymentPage'
import { DeploymentsPage } from '../pages/DeploymentsPage'
import { EventsPage } from '../pages/EventsPage'
import { HostPage } from '../pages/HostPage'
import { HostsPage } from '../pages/HostsPage'
import { InstancePage } from '../pages/InstancePage'
import { NotFoundPage } from '../pages/NotFoundPage'
import { PoliciesPage } from '../pages/PoliciesPage'
import { PolicyPage } from '../pages/PolicyPage'
import { StreamsPage } from '../pages/StreamsPage'
import { TopologyPage } from '../pages/TopologyPage'
import { ApiProvider } from './api'
import { paths, patterns } from './paths'
import { session } from './session'
import { Shell } from './Shell'
import { SignIn } from './SignIn'
import { useStore } from './store'

export function App() {
  const { token, ended } = useStore(session)
  // Signing in happens in place: the address stays what was asked for.
  if (token === null) return <SignIn ended={ended} />
  return (
    <ApiProvider key={token} token={token}>
      <Shell>
        <Switch>
          <Route path={patterns.home}>
            <Redirect to={paths.deployments()} replace />
          </Route>
          <Route path={patterns.deployments} component={DeploymentsPage} />
          <Route path={patterns.deployment}>{({ name }) => <DeploymentPage key={name} name={name} />}</Route>
          <Route path={patterns.topology}>{({ name }) => <TopologyPage key={name} name={name} />}</Route>
          <Route path={patterns.instance}>
            {({ deployment, member, view }) => (
              <InstancePage
                key={`${deployment}/${member}`}
                deployment={deployment}
                member={member}
                consoleOpen={view === 'console'}
              />
            )}
          </Route>
          <Route path={patterns.hosts} component={HostsPage} />
          <Route path={patterns.host}>{({ name }) => <HostPage key={name} name={name} />}</Route>
          <Route path={patterns.streams} component={StreamsPage} />
          <Route path={patterns.appliances} component={AppliancesPage} />
          <Route path={patterns.policies} component={PoliciesPage} />
          <Route path={patterns.policy}>{({ name }) => <PolicyPage key={name} name={name} />}</Route>
          <Route path={patterns.events} component={EventsPage} />
          <Route path={patterns.audit} component={AuditPage} />
          <Route component={NotFoundPage} />
        </Switch>
      </Shell>
    </ApiProvider>
  )
}
