import { defineConfig } from '@playwright/test'
import { chromium } from './e2e/chromium'

/** The dashboard that a running controller serves; where and what is in COLLECTIVE_URL, _TOKEN and _INSTANCE. */
export default defineConfig({
  testDir: 'e2e',
  testMatch: 'smoke.real.ts',
  outputDir: 'test-results/smoke',
  workers: 1,
  retries: 0,
  timeout: 120_000,
  expect: { timeout: 20_000 },
  reporter: [['list']],
  // The controller's certificate authority is its own.
  use: { ...chromium, baseURL: process.env['COLLECTIVE_URL'], ignoreHTTPSErrors: true },
})
