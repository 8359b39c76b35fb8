import { expect, test } from '@playwright/test'
import { signIn } from './signIn'

test('says what a boot waited for, why, and which profile served it', async ({ page }) => {
  await signIn(page, 'ready', '/instances/office/workspace')
  const waits = page.getByRole('region', { name: 'Waits', exact: true })
  await expect(waits).toContainText(/500\sms of 5\.0\ss were spent waiting, for 4 reads/)
  await expect(waits).toContainText(/62\s% not in the profile, 20\s% came too late, 18\s% no profile fitted/)
  await expect(waits).toContainText('Profile boot')
  await expect(waits).toContainText('188 pieces read, boot fits 0.93, login fits 0.21')
  const rows = page.getByRole('region', { name: 'Longest waits' }).getByRole('row')
  await expect(rows).toHaveCount(5)
  await expect(rows.nth(1)).toContainText(/900\sms.*310\sms.*204.*origin 10\.77\.0\.2:6881.*not in the profile.*boot/)
})

test('lists waits as they happen', async ({ page }) => {
  await signIn(page, 'live', '/instances/office/workspace')
  const rows = page.getByRole('region', { name: 'Longest waits' }).getByRole('row')
  await expect(rows.filter({ hasText: 'came too late' })).toHaveCount(2, { timeout: 10_000 })
})

test('tells near peers from far ones, and how fast each is', async ({ page }) => {
  await signIn(page, 'live', '/instances/office/workspace')
  const peers = page.getByRole('region', { name: 'Peers' })
  await expect(peers).toContainText('host of this site')
  await expect(peers).toContainText(/5\.5\sMiB\/s/)
  await expect(page.getByRole('group', { name: 'Peers' })).toContainText('1 origin, 1 of this site, 0 far')
  await expect(page.getByRole('group', { name: 'Rate' })).toContainText(/7\.75\sMiB\/s/)
})

test('shows every image on every host with its readers', async ({ page }) => {
  await signIn(page, 'ready')
  await page.getByRole('navigation', { name: 'Main' }).getByRole('link', { name: 'Streams' }).click()
  const streams = page.getByRole('region', { name: 'Streams' })
  await expect(streams.getByRole('row')).toHaveCount(3)
  const workspace = streams.getByRole('row').filter({ hasText: 'acme/workspace' })
  await expect(workspace).toContainText('h2')
  await expect(workspace).toContainText('boot 0.93')
  await workspace.getByRole('link', { name: 'office/workspace' }).click()
  await expect(page).toHaveURL(/\/instances\/office\/workspace$/)
})
