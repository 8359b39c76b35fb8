import { expect, type Page, test } from '@playwright/test'
import { coloursOf, signIn } from './signIn'

const pieces = async (page: Page, kind: string) =>
  Number((await page.locator(`[data-pieces="${kind}"]`).innerText()).replaceAll(',', ''))

test('fills the piece map while an instance boots, then shows its time to ready', async ({ page }) => {
  await signIn(page, 'live', '/instances/office/workspace')
  await expect(page.getByRole('heading', { level: 1 }).getByText('Booting')).toBeVisible()
  await expect(page.getByText('since it started, not ready yet')).toBeVisible()
  await expect.poll(() => pieces(page, 'here')).toBeGreaterThan(0)
  const early = await pieces(page, 'here')
  await expect.poll(() => pieces(page, 'here')).toBeGreaterThan(early)
  expect(await coloursOf(page, /^Piece map of 512 pieces/)).toBeGreaterThanOrEqual(3)
  await expect(page.getByRole('group', { name: 'Time to ready' })).toContainText(/5\.0\ss/)
  await expect(page.getByRole('heading', { level: 1 })).toContainText('Ready')
  expect(await pieces(page, 'fetching')).toBe(0)
  expect((await pieces(page, 'here')) + (await pieces(page, 'absent')) + (await pieces(page, 'zero'))).toBe(512)
})

test('shows where the bytes came from, stalls, peers, placement and ports', async ({ page }) => {
  await signIn(page, 'ready', '/instances/office/workspace')
  await expect(page.getByRole('img', { name: /^Where its bytes came from: Origin \d+(\.\d+)?\sMiB, Peers / })).toBeVisible()
  await expect(page.getByRole('group', { name: 'Fetched' })).toContainText(/of 128\sMiB/)
  await expect(page.getByRole('group', { name: 'Stalls' })).toContainText(/longest 310\sms/)
  await expect(page.getByRole('region', { name: 'Peers' })).toContainText('10.77.0.12:6881')
  const placement = page.getByRole('region', { name: 'Placement' })
  await expect(placement).toContainText('1.62')
  await expect(placement).toContainText('no other member of office is here')
  await expect(placement).toContainText('it is offline')
  await expect(page.getByRole('region', { name: 'Ports' })).toContainText('10.20.0.10')
})

test('shows the console log as text', async ({ page }) => {
  await signIn(page, 'ready', '/instances/office/workspace')
  const log = page.getByRole('log', { name: 'Console log' })
  await expect(log).toContainText('[  OK  ] Mounted home volume')
  await expect(log).toContainText('workspace: ready')
  expect(await log.innerText()).not.toContain('\u001b')
})

test('talks to the guest over the console and leaves it with Ctrl+]', async ({ page }) => {
  await signIn(page, 'ready', '/instances/office/workspace')
  await page.getByRole('button', { name: 'Open console' }).click()
  await expect(page).toHaveURL(/\/instances\/office\/workspace\/console$/)
  const console = page.getByRole('group', { name: 'Console of office/workspace' })
  await expect(console).toContainText('workspace login:')
  await page.keyboard.type('ana')
  await page.keyboard.press('Enter')
  await expect(console).toContainText('you said: ana')
  await page.keyboard.press('Control+]')
  await expect(console).toBeHidden()
  await expect(page).toHaveURL(/\/instances\/office\/workspace$/)
})

test('says why a console ended and connects again', async ({ page }) => {
  await signIn(page, 'ready', '/instances/office/workspace/console')
  await expect(page.locator('.xterm-rows')).toContainText('workspace login:')
  await page.keyboard.type('exit')
  await page.keyboard.press('Enter')
  await expect(page.getByText('The console has ended.')).toBeVisible()
  await page.getByRole('button', { name: 'Connect again' }).click()
  await expect(page.locator('.xterm-rows')).toContainText('workspace login:')
})

test('starts an instance anew after asking', async ({ page }) => {
  await signIn(page, 'ready', '/instances/office/workspace')
  await page.getByRole('button', { name: 'Start anew' }).click()
  const dialog = page.getByRole('dialog', { name: 'Start office/workspace anew?' })
  await expect(dialog).toContainText('Its volumes are kept: home.')
  await page.keyboard.press('Escape')
  await expect(dialog).toBeHidden()
  await page.getByRole('button', { name: 'Start anew' }).click()
  await dialog.getByRole('button', { name: 'Start anew' }).click()
  await expect(dialog).toBeHidden()
  await expect(page.getByRole('heading', { level: 1 }).getByText('Booting')).toBeVisible()
})

test('shows why a token may not start an instance anew', async ({ page }) => {
  await signIn(page, 'read', '/instances/office/workspace')
  await page.getByRole('button', { name: 'Start anew' }).click()
  const dialog = page.getByRole('dialog')
  await dialog.getByRole('button', { name: 'Start anew' }).click()
  await expect(dialog.getByRole('alert')).toContainText('This token may only read. Use one of role admin.')
})

test('disables what cannot be done and says why', async ({ page }) => {
  await signIn(page, 'ready', '/instances/lab/watcher')
  const open = page.getByRole('button', { name: 'Open console' })
  await expect(open).toHaveAttribute('aria-disabled', 'true')
  await expect(open).toHaveAccessibleDescription('It has no host yet, so there is no console.')
  await open.focus()
  await page.keyboard.press('Enter')
  await expect(page).toHaveURL(/\/instances\/lab\/watcher$/)
  await expect(page.getByText('No host has 64 GiB of memory free.')).toBeVisible()
  await expect(page.getByRole('region', { name: 'Placement' })).toContainText('64 GiB of memory asked for')
})
