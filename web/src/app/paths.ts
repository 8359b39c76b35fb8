/** The only place where the dashboard's own addresses are spelled. */

const part = encodeURIComponent

export const patterns = {
  home: '/',
  deployments: '/deployments',
  deployment: '/deployments/:name',
  topology: '/deployments/:name/topology',
  instance: '/instances/:deployment/:member/:view?',
  hosts: '/hosts',
  host: '/hosts/:name',
  streams: '/streams',
  appliances: '/appliances',
  policies: '/policies',
  policy: '/policies/:name',
  events: '/events',
  audit: '/audit',
} as const

export const paths = {
  deployments: () => '/deployments',
  deployment: (name: string) => `/deployments/${part(name)}`,
  topology: (name: string) => `/deployments/${part(name)}/topology`,
  /** `deployment/member`. */
  instance: (id: string) => `/instances/${id.split('/').map(part).join('/')}`,
  console: (id: string) => `${paths.instance(id)}/console`,
  hosts: () => '/hosts',
  host: (name: string) => `/hosts/${part(name)}`,
  streams: () => '/streams',
  appliances: () => '/appliances',
  policies: () => '/policies',
  policy: (name: string) => `/policies/${part(name)}`,
  events: (filter = '') => (filter === '' ? '/events' : `/events?filter=${part(filter)}`),
  audit: () => '/audit',
}

/** Where the page of an event's object is: `host/h1`, `instance/office/gateway`, `deployment/office`. */
export function objectPath(object: string): string | null {
  const [kind, first, second] = object.split('/')
  if (first === undefined || first === '') return null
  switch (kind) {
    case 'deployment':
      return paths.deployment(first)
    case 'instance':
      return second ? paths.instance(`${first}/${second}`) : null
    case 'host':
      return paths.host(first)
    case 'appliance':
      return paths.appliances()
    case 'policy':
      return paths.policy(first)
    default:
      return null
  }
}
