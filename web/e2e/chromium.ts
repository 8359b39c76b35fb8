import type { PlaywrightTestOptions, PlaywrightWorkerOptions } from '@playwright/test'

/** The distribution's own browser: none is downloaded. */
export const chromium = {
  browserName: 'chromium',
  headless: true,
  viewport: { width: 1360, height: 900 },
  launchOptions: {
    executablePath: process.env['COLLECTIVE_CHROMIUM'] ?? '/usr/bin/chromium',
    args: ['--no-sandbox', '--disable-gpu', '--disable-background-networking', '--no-first-run'],
  },
} satisfies Partial<PlaywrightTestOptions & PlaywrightWorkerOptions>
