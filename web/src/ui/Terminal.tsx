import { FitAddon } from '@xterm/addon-fit'
import { Terminal as Xterm } from '@xterm/xterm'
import '@xterm/xterm/css/xterm.css'
import { useEffect, useRef } from 'react'

interface TerminalProps {
  label: string
  /** WebSocket address that takes and gives the bytes of a terminal. */
  url: string
  onEnd: (reason: string) => void
  /** Ctrl+] was pressed: the way out of a console, as in virsh. */
  onLeave: () => void
}

/** A terminal on a WebSocket, from when it appears until it goes. */
export default function Terminal({ label, url, onEnd, onLeave }: TerminalProps) {
  const box = useRef<HTMLDivElement>(null)
  const callbacks = useRef({ onEnd, onLeave })
  useEffect(() => {
    callbacks.current = { onEnd, onLeave }
  })
  useEffect(() => {
    if (!box.current) return
    const terminal = open(box.current, () => callbacks.current.onLeave())
    const close = attach(terminal, url, (reason) => callbacks.current.onEnd(reason))
    return () => {
      close()
      terminal.dispose()
    }
  }, [url])
  return <div className="console" role="group" aria-label={label} ref={box} />
}

function open(box: HTMLElement, onLeave: () => void): Xterm {
  const terminal = new Xterm({
    fontFamily: getComputedStyle(box).fontFamily,
    fontSize: 13,
    cursorBlink: !window.matchMedia('(prefers-reduced-motion: reduce)').matches,
    scrollback: 5_000,
    screenReaderMode: true,
    theme: { background: '#0b0e13', foreground: '#d6dbe4', cursor: '#8b97f5' },
  })
  const fit = new FitAddon()
  terminal.loadAddon(fit)
  terminal.open(box)
  fit.fit()
  terminal.attachCustomKeyEventHandler((event) => {
    if (!event.ctrlKey || event.key !== ']') return true
    if (event.type === 'keydown') onLeave()
    return false
  })
  const observer = new ResizeObserver(() => fit.fit())
  observer.observe(box)
  terminal.loadAddon({ activate: () => undefined, dispose: () => observer.disconnect() })
  terminal.focus()
  return terminal
}

function attach(terminal: Xterm, url: string, onEnd: (reason: string) => void): () => void {
  const socket = new WebSocket(url)
  socket.binaryType = 'arraybuffer'
  const encoder = new TextEncoder()
  const send = (bytes: Uint8Array<ArrayBuffer>) => {
    if (socket.readyState === WebSocket.OPEN) socket.send(bytes)
  }
  terminal.onData((text) => send(encoder.encode(text)))
  terminal.onBinary((text) => send(Uint8Array.from(text, (character) => character.charCodeAt(0))))
  socket.onmessage = ({ data }) => {
    terminal.write(data instanceof ArrayBuffer ? new Uint8Array(data) : String(data))
  }
  socket.onclose = ({ code, reason }) => {
    onEnd(reason === '' ? `The connection to the console ended (code ${code}).` : reason)
  }
  return () => {
    socket.onmessage = socket.onclose = null
    socket.close()
  }
}
