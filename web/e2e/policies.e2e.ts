import { expect, test } from '@playwright/test'
import { signIn } from './signIn'

test('lists who decides what, who vouches for it and how it does', async ({ page }) => {
  await signIn(page, 'ready', '/policies')
  const policies = page.getByRole('region', { name: 'Policies' })
  await expect(policies.getByRole('row').filter({ hasText: 'balanced' })).toContainText('12 answers')
  await expect(policies.getByRole('row').filter({ hasText: 'balanced' })).toContainText('the controller’s package')
  await expect(policies.getByRole('row').filter({ hasText: 'waves' })).toContainText('Not asked: it failed too often')
  await expect(page.getByRole('region', { name: 'Trusted keys' }).last()).toContainText('placement, update')
  await page.getByRole('link', { name: 'waves' }).click()
  await expect(page.getByRole('alert')).toContainText('longer than 50 ms')
  await expect(page.getByText('policy cautious is asked')).toBeVisible()
})

test('shows where a candidate differs, promotes it and goes back', async ({ page }) => {
  await signIn(page, 'ready', '/policies/balanced')
  await expect(page.getByRole('region', { name: 'Differing answers' })).toContainText('place on h3')
  await expect(page.getByRole('region', { name: 'Last decisions' }).last()).toContainText('instance/office/workspace')
  await page.getByRole('button', { name: 'Promote candidate' }).click()
  const dialog = page.getByRole('dialog', { name: 'Promote the candidate of balanced?' })
  await expect(dialog).toContainText('balanced 0.2.0 answers from the next decision on.')
  await dialog.getByRole('button', { name: 'Promote' }).click()
  await expect(dialog).toBeHidden()
  await expect(page.getByRole('region', { name: 'Who answers' })).toContainText('balanced 0.2.0')
  await expect(page.getByRole('region', { name: 'Settings' })).toContainText('"spread": 2')
  await page.getByRole('button', { name: 'Roll back' }).click()
  await page.getByRole('dialog').getByRole('button', { name: 'Roll back' }).click()
  await expect(page.getByRole('region', { name: 'Who answers' })).toContainText('balanced 0.1.0')
})

test('shows the controller’s refusal where a change was asked for', async ({ page }) => {
  await signIn(page, 'read', '/policies/balanced')
  await page.getByRole('button', { name: 'Drop candidate' }).click()
  const dialog = page.getByRole('dialog')
  await dialog.getByRole('button', { name: 'Drop' }).click()
  await expect(dialog.getByRole('alert')).toContainText('This token may only read.')
  await dialog.getByRole('button', { name: 'Cancel' }).click()
  await expect(page.getByRole('region', { name: 'Differing answers' })).toBeVisible()
})

test('cordons a host and takes it back', async ({ page }) => {
  await signIn(page, 'ready', '/hosts/h1')
  await expect(page.getByText('rack=a3')).toBeVisible()
  await expect(page.getByText('Firmware compared with the vendor’s list')).toBeVisible()
  await page.getByRole('button', { name: 'Cordon' }).click()
  await page.getByRole('dialog', { name: 'Cordon h1?' }).getByRole('button', { name: 'Cordon' }).click()
  await expect(page.getByText('Cordoned')).toBeVisible()
  await page.getByRole('button', { name: 'Return to service' }).click()
  await page.getByRole('dialog').getByRole('button', { name: 'Return to service' }).click()
  await expect(page.getByText('In service')).toBeVisible()
})
