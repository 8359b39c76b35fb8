// CSI (colours, cursor), OSC (titles, ended by BEL or ST), and two-character escapes.
const ESCAPES = /\u001b(?:\[[0-?]*[ -/]*[@-~]|\][^\u0007\u001b]*(?:\u0007|\u001b\\)?|[ -/]*[0-~])/g
// What is left of other control characters, but tab and newline.
const CONTROLS = /[\u0000-\u0008\u000b-\u001f\u007f]/g

/** A serial console's bytes as a page of text: what would have stayed on a screen, without colours. */
export function consoleText(raw: string): string {
  return raw.replace(ESCAPES, '').replace(/\r+\n/g, '\n').split('\n').map(overwritten).join('\n')
}

/** A carriage return begins the line again; what follows is written over what was there. */
function overwritten(line: string): string {
  if (!line.includes('\r') && !line.includes('\b')) return line.replace(CONTROLS, '')
  let text: string[] = []
  let at = 0
  for (const character of line) {
    if (character === '\r') at = 0
    else if (character === '\b') at = Math.max(0, at - 1)
    else text[at++] = character
  }
  return text.join('').replace(CONTROLS, '')
}
