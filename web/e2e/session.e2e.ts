import { expect, test } from '@playwright/test'
import { enter, signIn } from './signIn'

test('refuses a wrong token with the controller’s message and keeps the address', async ({ page }) => {
  await page.goto('/hosts/h1')
  await enter(page, 'wrong')
  await expect(page.getByRole('alert')).toHaveText('This token is unknown, expired or revoked. Ask for a new one.')
  await enter(page, 'mock-ready-after-wrong')
  await expect(page.getByRole('heading', { level: 1, name: 'h1' })).toBeVisible()
  expect(new URL(page.url()).pathname).toBe('/hosts/h1')
})

test('keeps the token in the tab only and forgets it on sign-out', async ({ page, context }) => {
  await signIn(page, 'ready')
  await page.reload()
  await expect(page.getByRole('heading', { level: 1, name: 'Deployments' })).toBeVisible()
  const other = await context.newPage()
  await other.goto('/')
  await expect(other.getByLabel('Token')).toBeVisible()
  await page.getByRole('button', { name: 'Sign out' }).click()
  await expect(page.getByLabel('Token')).toBeVisible()
  expect(await page.evaluate(() => JSON.stringify([{ ...sessionStorage }, { ...localStorage }]))).not.toContain('mock-')
})

test('asks for a new token when this one is revoked', async ({ page }) => {
  await signIn(page, 'revoked')
  await expect(page.getByRole('alert')).toContainText('revoked')
  await expect(page.getByLabel('Token')).toBeVisible()
})

test('says why it cannot sign in yet', async ({ page }) => {
  await page.goto('/')
  await expect(page.getByRole('button', { name: 'Sign in' })).toHaveAccessibleDescription('Enter a token first.')
})

test('says that the controller does not answer, keeps what is known, and recovers', async ({ page }) => {
  await signIn(page, 'outage')
  await expect(page.getByRole('link', { name: 'office', exact: true })).toBeVisible()
  await expect(page.getByText('The controller does not answer.')).toBeVisible()
  await expect(page.getByRole('link', { name: 'office', exact: true })).toBeVisible()
  await expect(page.getByText('The controller does not answer.')).toBeHidden()
  await expect(page.getByText('Live', { exact: true })).toBeVisible()
})
