import { expect, test } from '@playwright/test'
import { signIn } from './signIn'

const PATHS = {
  deployments: '/deployments',
  deployment: '/deployments/office',
  instance: '/instances/office/workspace',
  hosts: '/hosts',
  host: '/hosts/h2',
  appliances: '/appliances',
  events: '/events',
  audit: '/audit',
}

for (const colorScheme of ['light', 'dark'] as const) {
  test(`has a ${colorScheme} look`, async ({ page }, info) => {
    await page.emulateMedia({ colorScheme })
    await page.goto('/')
    await page.screenshot({ path: info.outputPath('sign-in.png') })
    await signIn(page, 'ready')
    for (const [name, path] of Object.entries(PATHS)) {
      await page.goto(path)
      await expect(page.locator('.skeleton')).toHaveCount(0)
      await expect(page.getByRole('heading', { level: 1 })).toBeVisible()
      await page.screenshot({ path: info.outputPath(`${name}.png`), fullPage: true })
    }
    const [red = 0, green = 0, blue = 0] = await page.evaluate(() =>
      (getComputedStyle(document.body).backgroundColor.match(/\d+/g) ?? []).map(Number),
    )
    const brightness = (red + green + blue) / 3
    if (colorScheme === 'dark') expect(brightness).toBeLessThan(60)
    else expect(brightness).toBeGreaterThan(200)
  })
}
