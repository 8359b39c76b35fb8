import { Fragment, type ReactNode } from 'react'

interface PageHeadProps {
  title: string
  /** Links to what it is part of, outermost first. */
  within?: readonly ReactNode[]
  badge?: ReactNode
  actions?: ReactNode
}

export function PageHead({ title, within = [], badge, actions }: PageHeadProps) {
  return (
    <div className="page-head">
      <title>{`${title} · Collective`}</title>
      <div>
        {within.length > 0 && (
          <nav className="within" aria-label="Part of">
            {within.map((link, depth) => (
              <Fragment key={depth}>
                {link}
                <span aria-hidden="true">/</span>
              </Fragment>
            ))}
          </nav>
        )}
        <h1>
          {title} {badge}
        </h1>
      </div>
      {actions && <div className="actions">{actions}</div>}
    </div>
  )
}
