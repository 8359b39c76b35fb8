import { expect, type Page, test } from '@playwright/test'
import { signIn } from './signIn'

const TABS_MAX = 30

async function tabTo(page: Page, name: string) {
  for (let tabs = 0; tabs < TABS_MAX; tabs++) {
    await page.keyboard.press('Tab')
    const at = await page.evaluate(() => document.activeElement?.textContent?.trim() ?? '')
    if (at === name) return
  }
  throw new Error(`${name} was not reached with ${TABS_MAX} times Tab`)
}

test('leads from sign-in to a console without a mouse', async ({ page }) => {
  await page.goto('/')
  await expect(page.getByLabel('Token')).toBeFocused()
  await page.keyboard.type('mock-ready-keyboard')
  await page.keyboard.press('Enter')
  await expect(page.getByRole('link', { name: 'office', exact: true })).toBeVisible()
  await tabTo(page, 'office')
  await page.keyboard.press('Enter')
  await expect(page.getByRole('main')).toBeFocused()
  await expect(page.getByRole('link', { name: 'workspace' }).first()).toBeVisible()
  await tabTo(page, 'workspace')
  await page.keyboard.press('Enter')
  await expect(page.getByRole('button', { name: 'Open console' })).toHaveAttribute('aria-disabled', 'false')
  await tabTo(page, 'Open console')
  await page.keyboard.press('Enter')
  await expect(page.locator('.xterm-rows')).toContainText('workspace login:')
})

test('skips the navigation with the first Tab', async ({ page }) => {
  await signIn(page, 'ready')
  await page.goto('/hosts')
  await expect(page.getByRole('heading', { level: 1, name: 'Hosts' })).toBeVisible()
  await page.keyboard.press('Tab')
  await expect(page.getByRole('link', { name: 'Skip to content' })).toBeFocused()
  await page.keyboard.press('Enter')
  await expect(page.getByRole('main')).toBeFocused()
})
