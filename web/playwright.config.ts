import { defineConfig } from '@playwright/test'
import { chromium } from './e2e/chromium'

const port = Number(process.env['COLLECTIVE_E2E_PORT'] ?? 4180)

/** The built dashboard against the mock API. */
export default defineConfig({
  testDir: 'e2e',
  testMatch: '*.e2e.ts',
  outputDir: 'test-results',
  workers: 2,
  fullyParallel: true,
  forbidOnly: true,
  timeout: 30_000,
  expect: { timeout: 10_000 },
  reporter: [['list']],
  use: { ...chromium, baseURL: `http://127.0.0.1:${port}` },
  webServer: {
    command: `npx vite preview --mode mock --host 127.0.0.1 --port ${port} --strictPort`,
    url: `http://127.0.0.1:${port}/`,
    reuseExistingServer: false,
  },
})
