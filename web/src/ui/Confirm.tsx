import { type ReactNode, useEffect, useId, useRef } from 'react'
import { Button } from './Button'

interface ConfirmProps {
  title: string
  action: string
  /** It was asked for and is not done yet. */
  busy: boolean
  onConfirm: () => void
  onCancel: () => void
  children: ReactNode
}

/** Asks before something is lost. The browser keeps the keyboard inside, and Escape cancels. */
export function Confirm({ title, action, busy, onConfirm, onCancel, children }: ConfirmProps) {
  const dialog = useRef<HTMLDialogElement>(null)
  const heading = useId()
  useEffect(() => {
    const shown = dialog.current
    shown?.showModal()
    return () => shown?.close()
  }, [])
  return (
    <dialog
      ref={dialog}
      className="confirm"
      aria-labelledby={heading}
      onCancel={(event) => {
        event.preventDefault()
        onCancel()
      }}
    >
      <h2 id={heading}>{title}</h2>
      {children}
      <div className="confirm-actions">
        <Button onClick={onCancel}>Cancel</Button>
        <Button look="danger" onClick={onConfirm} denied={busy ? 'It is under way.' : null}>
          {action}
        </Button>
      </div>
    </dialog>
  )
}
