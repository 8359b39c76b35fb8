import { expect, type Page } from '@playwright/test'

/** Opens an address and signs in there. Each call is a world of its own in the mock API. */
export async function signIn(page: Page, scenario: string, path = '/') {
  await page.goto(path)
  await enter(page, `mock-${scenario}-${Math.random().toString(36).slice(2)}`)
  await expect(page.getByRole('button', { name: 'Sign out' })).toBeVisible()
}

export async function enter(page: Page, token: string) {
  await page.getByLabel('Token').fill(token)
  await page.getByRole('button', { name: 'Sign in' }).click()
}

/** How many colours a canvas shows: one is an empty one. */
export async function coloursOf(page: Page, label: RegExp): Promise<number> {
  return page.getByRole('img', { name: label }).evaluate((element) => {
    if (!(element instanceof HTMLCanvasElement) || element.width === 0 || element.height === 0) return 0
    const data = element.getContext('2d')?.getImageData(0, 0, element.width, element.height).data ?? []
    const colours = new Set<number>()
    for (let at = 0; at < data.length; at += 4) {
      if (data[at + 3] !== 0) colours.add(((data[at] ?? 0) << 16) | ((data[at + 1] ?? 0) << 8) | (data[at + 2] ?? 0))
    }
    return colours.size
  })
}
