import { expect, test } from '@playwright/test'
import { signIn } from './signIn'

test('draws members, networks and ports with their states and rates', async ({ page }) => {
  await signIn(page, 'ready', '/deployments/office')
  await page.getByRole('link', { name: 'Topology' }).click()
  await expect(page).toHaveURL(/\/deployments\/office\/topology$/)
  const picture = page.getByRole('group', { name: 'Members and networks of office' })
  await expect(picture.getByRole('group', { name: /^Member / })).toHaveCount(3)
  await expect(picture.getByRole('group', { name: 'Network inside: private' })).toContainText('10.20.0.0/24')
  await expect(picture.getByRole('group', { name: 'Network outside: site, not ready' })).toBeAttached()
  await expect(picture.getByRole('group', { name: /^Port gateway\/wan on outside: not ready: closed, 12 frames dropped/ })).toBeAttached()
  // Counters grow by 500,000 bytes a second; the second picture tells.
  const lan = picture.getByRole('group', { name: /^Port gateway\/lan on inside/ })
  await expect(lan).toContainText(/[1-9][0-9.]*\s[KM]iB\/s/)
})

test('shows what is in the path of a port and leads to its instance', async ({ page }) => {
  await signIn(page, 'ready', '/deployments/office/topology')
  const row = page.getByRole('region', { name: 'In the path' }).getByRole('row').nth(1)
  await expect(row).toContainText('workspace/eth0')
  await expect(row).toContainText('spliced')
  await expect(row).toContainText('pass')
  await page.getByRole('link', { name: 'workspace', exact: true }).click()
  await expect(page).toHaveURL(/\/instances\/office\/workspace$/)
})

test('says that there is no such deployment', async ({ page }) => {
  await signIn(page, 'ready', '/deployments/nowhere/topology')
  await expect(page.getByRole('alert').or(page.getByText(/there is no|not found|nothing/i)).first()).toBeVisible()
})
