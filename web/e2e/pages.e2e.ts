import { expect, test } from '@playwright/test'
import { signIn } from './signIn'

test('lists deployments with their state', async ({ page }) => {
  await signIn(page, 'ready')
  const office = page.getByRole('row').filter({ hasText: 'ana' })
  await expect(office).toContainText('Ready')
  await expect(office.getByRole('link', { name: /^workspace is ready$/ })).toBeVisible()
  await expect(page.getByRole('row').filter({ hasText: 'watcher' })).toContainText('1 problem')
})

test('shows a deployment’s instances, ports, problems and placement', async ({ page }) => {
  await signIn(page, 'ready', '/deployments/office')
  await expect(page.getByRole('region', { name: 'Instances' }).last()).toContainText('10.20.0.10')
  await expect(page.getByRole('region', { name: 'Ports of network inside' })).toContainText('02:a7:10:00:00:02')
  await expect(page.getByRole('region', { name: 'Placement' })).toContainText('96 of 352 pieces are here')
  await page.goto('/deployments/lab')
  await expect(page.getByRole('alert')).toContainText('no host has 64 GiB of memory free')
})

test('lists hosts with accelerator, memory and whether they answer', async ({ page }) => {
  await signIn(page, 'ready', '/hosts')
  await expect(page.getByRole('row').filter({ hasText: 'h1' })).toContainText('KVM')
  await expect(page.getByRole('row').filter({ hasText: 'h1' })).toContainText(/3\.1\sGiB free of 4\sGiB/)
  await expect(page.getByRole('row').filter({ hasText: 'h3' })).toContainText('Offline')
  await page.getByRole('link', { name: 'h2' }).click()
  await expect(page.getByText('The probe guest did not start with /dev/kvm within 10 s.')).toBeVisible()
  await expect(page.getByRole('region', { name: 'Ports of office/inside' })).toContainText('office/workspace/eth0')
})

test('lists appliances, events and the audit log', async ({ page }) => {
  await signIn(page, 'ready', '/appliances')
  await expect(page.getByRole('region', { name: 'Versions of acme/gateway' })).toContainText('stable')
  await page.getByRole('link', { name: 'Events' }).click()
  await expect(page.getByText('h3 has not been heard for 5 s.')).toBeVisible()
  await page.getByLabel('Filter events').fill('gateway ready')
  await expect(page.getByText('h3 has not been heard for 5 s.')).toBeHidden()
  await expect(page.getByText('Ready after 8.4 s.')).toBeVisible()
  expect(new URL(page.url()).searchParams.get('filter')).toBe('gateway ready')
  await page.getByRole('link', { name: 'Audit' }).click()
  await expect(page.getByRole('region', { name: 'Audit log' })).toContainText('token-create')
})

test('says what to do where there is nothing', async ({ page }) => {
  await signIn(page, 'empty')
  await expect(page.getByText('Nothing is deployed yet.')).toBeVisible()
  for (const [link, text] of [
    ['Hosts', 'No host has joined yet.'],
    ['Streams', 'No host has an image yet.'],
    ['Appliances', 'No appliance has been published yet.'],
    ['Policies', 'No policy is installed.'],
    ['Events', 'Nothing has happened yet.'],
    ['Audit', 'Nobody has changed anything yet.'],
  ] as const) {
    await page.getByRole('navigation', { name: 'Main' }).getByRole('link', { name: link }).click()
    await expect(page.getByText(text)).toBeVisible()
  }
})

test('shows the controller’s own message when it refuses', async ({ page }) => {
  await signIn(page, 'hostless', '/hosts')
  await expect(page.getByRole('alert')).toContainText('The store is being recovered. Try again in a few seconds.')
  await page.goto('/instances/office/nobody')
  await expect(page.getByRole('alert').first()).toContainText('There is nothing of this name.')
})

test('knows no page at a wrong address', async ({ page }) => {
  await signIn(page, 'ready', '/nowhere')
  await expect(page.getByText('There is nothing at this address.')).toBeVisible()
})

test('breaks no rule of a strict content security policy', async ({ page }) => {
  const complaints: string[] = []
  page.on('console', (message) => {
    if (message.type() === 'error') complaints.push(message.text())
  })
  await signIn(page, 'ready')
  for (const path of ['/deployments/office', '/instances/office/workspace', '/hosts', '/hosts/h1', '/policies', '/policies/balanced', '/instances/office/workspace/console']) {
    await page.goto(path)
    await expect(page.getByRole('heading', { level: 1 })).toBeVisible()
  }
  await expect(page.locator('.xterm-screen')).toBeVisible()
  expect(complaints).toEqual([])
})

test('can be used on a narrow screen without scrolling the page sideways', async ({ page }) => {
  await page.setViewportSize({ width: 390, height: 844 })
  await signIn(page, 'ready')
  for (const path of ['/deployments', '/deployments/office', '/instances/office/workspace', '/hosts', '/hosts/h1', '/streams', '/events']) {
    await page.goto(path)
    await expect(page.locator('.skeleton')).toHaveCount(0)
    await expect(page.getByRole('heading', { level: 1 })).toBeVisible()
    const beyond = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth)
    expect(beyond, path).toBeLessThanOrEqual(0)
  }
})
