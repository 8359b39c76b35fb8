import { type MouseEvent, type ReactNode, type Ref, useId } from 'react'

interface ButtonProps {
  children: ReactNode
  onClick?: () => void
  type?: 'button' | 'submit'
  look?: 'plain' | 'primary' | 'danger'
  /** Why it cannot be pressed now; it stays reachable, so that the reason is. */
  denied?: string | null
  ref?: Ref<HTMLButtonElement>
}

export function Button({ children, onClick, type = 'button', look = 'plain', denied = null, ref }: ButtonProps) {
  const reason = useId()
  const press = (event: MouseEvent) => {
    if (denied !== null) event.preventDefault()
    else onClick?.()
  }
  return (
    <span className="button-place">
      <button
        ref={ref}
        type={type}
        className={`button ${look}`}
        aria-disabled={denied !== null}
        aria-describedby={denied === null ? undefined : reason}
        onClick={press}
      >
        {children}
      </button>
      {denied !== null && (
        <span className="tip" id={reason} role="tooltip">
          {denied}
        </span>
      )}
    </span>
  )
}
