import { type APIRequestContext, expect, type Page, test } from '@playwright/test'
import type { BootView, DeploymentView } from '../src/api/types'
import { formatShare } from '../src/ui/format'
import { coloursOf } from './signIn'

/**
 * The dashboard of a running controller, from outside: COLLECTIVE_URL (https://...), COLLECTIVE_TOKEN, and
 * COLLECTIVE_INSTANCE (deployment/member), which must be ready.
 */

const READY_MS_MAX = 60_000
/** The page asks for a ready instance's boot so often; until the next answer it shows the last. */
const BOOT_POLL_MS = 2_000

function setting(name: string, form: RegExp, what: string): string {
  const value = process.env[name] ?? ''
  if (!form.test(value)) throw new Error(`Set ${name} to ${what}.`)
  return value
}

const url = setting('COLLECTIVE_URL', /^https?:\/\/[^/]+\/?$/, 'the controller’s address, such as https://127.0.0.1:8443').replace(/\/$/, '')
const token = setting('COLLECTIVE_TOKEN', /^\S+$/, 'an API token')
const id = setting('COLLECTIVE_INSTANCE', /^[a-z0-9-]+\/[a-z0-9-]+$/, 'an instance, such as office/workspace')
const [deployment = '', member = ''] = id.split('/')
const bootPath = `/v1/instances/${id}/boot`

async function ask<T>(request: APIRequestContext, path: string): Promise<T> {
  const answer = await request.get(`${url}${path}`, { headers: { Authorization: `Bearer ${token}` } }).catch(() => {
    throw new Error(`No controller answers at ${url}.`)
  })
  if (!answer.ok()) throw new Error(`GET ${path} was answered ${answer.status()}: ${await answer.text()}`)
  return (await answer.json()) as T
}

async function signIn(page: Page) {
  await page.goto('/')
  await page.getByLabel('Token').fill(token)
  await page.getByRole('button', { name: 'Sign in' }).click()
  await expect(page.getByRole('heading', { level: 1, name: 'Deployments' }), 'signed in').toBeVisible()
}

/** What the page shows, in the API's own terms. */
async function shown(page: Page) {
  const bytes = await page.locator('[data-bytes]').evaluateAll((all) => all.map((each) => Number(each.getAttribute('data-bytes'))))
  const pieces = await page
    .locator('[data-pieces]')
    .evaluateAll((all) => all.map((each) => Number((each.textContent ?? '').replaceAll(',', ''))))
  return { bytes, pieces, fetched: await page.getByRole('group', { name: 'Fetched' }).locator('.tile-value').innerText() }
}

function expected({ image }: BootView) {
  if (!image?.piece_map) throw new Error(`GET ${bootPath} has no image with a piece map`)
  const { origin, peer, cache, zero } = image.bytes
  const count = (kind: string) => (image.piece_map ?? '').split(kind).length - 1
  return {
    bytes: [origin, peer, cache, zero],
    pieces: [count('h'), count('f'), count('.'), count('z')],
    fetched: formatShare(origin + peer, image.size_bytes),
  }
}

test(`the dashboard shows ${id} as the API does`, async ({ page, request }) => {
  await ask(request, '/v1/version')
  await signIn(page)

  await expect
    .poll(async () => (await ask<DeploymentView>(request, `/v1/deployments/${deployment}`)).ready, {
      message: `deployment ${deployment} is ready`,
      timeout: READY_MS_MAX,
    })
    .toBe(true)
  const row = page.getByRole('row').filter({ has: page.getByRole('link', { name: deployment, exact: true }) })
  await expect(row, `the list says that ${deployment} is ready`).toContainText('Ready')

  await row.getByRole('link', { name: deployment, exact: true }).click()
  await page.getByRole('region', { name: 'Instances' }).getByRole('link', { name: member, exact: true }).first().click()
  await expect(page.getByRole('heading', { level: 1, name: member })).toContainText('Ready')
  await expect(page.getByRole('group', { name: 'Time to ready' })).toContainText('ready since')
  await expect(page.getByRole('log', { name: 'Console log' })).not.toBeEmpty()

  // A ready guest still reads now and then, so the page is held against the answer it was given itself.
  const answer = await page.waitForResponse((response) => new URL(response.url()).pathname === bootPath)
  const boot = (await answer.json()) as BootView
  await expect.poll(() => shown(page), { message: 'the page shows the numbers of GET /boot', timeout: BOOT_POLL_MS }).toEqual(expected(boot))
  const now = await ask<BootView>(request, bootPath)
  expect(now.ready_ms, 'the page shows the run that is on now').toBe(boot.ready_ms)
  expect(await coloursOf(page, /^Piece map of/), 'the piece map is drawn').toBeGreaterThanOrEqual(2)
})
