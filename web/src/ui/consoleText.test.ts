import { expect, it } from 'vitest'
import { consoleText } from './consoleText'

it.each([
  ['plain\r\nlines\r\n', 'plain\nlines\n'],
  ['\u001b[1;32m[ OK ]\u001b[0m Started', '[ OK ] Started'],
  ['\u001b]0;title\u0007shell', 'shell'],
  ['\u001b[2J\u001b[HSeaBIOS', 'SeaBIOS'],
  ['\u001bc\u001b(Blogin:', 'login:'],
  ['10 %\r100 %', '100 %'],
  ['loading...\rdone', 'doneing...'],
  ['passs\bword', 'password'],
  ['bell\u0007\u0000', 'bell'],
  ['a\tb', 'a\tb'],
])('shows %j as %j', (raw, text) => expect(consoleText(raw)).toBe(text))
