import react from '@vitejs/plugin-react'
import { defineConfig } from 'vitest/config'
import { mockApi } from './mock-api/plugin.ts'

// `--mode mock` answers the API from mock-api/; otherwise it is passed on to a real controller.
const controller = process.env['COLLECTIVE_URL'] ?? 'https://127.0.0.1:8443'
const toController = { target: controller, changeOrigin: true, secure: false, ws: true }

export default defineConfig(({ mode }) => ({
  plugins: [react(), ...(mode === 'mock' ? [mockApi()] : [])],
  build: { target: 'es2023', assetsInlineLimit: 0, sourcemap: false },
  // A preview takes the same.
  server: mode === 'mock' ? {} : { proxy: { '/v1': toController } },
  test: { include: ['{src,mock-api}/**/*.test.ts'] },
}))
